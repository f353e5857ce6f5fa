"""How memory grows: with the number of blobs in the repository, and with the size of a file.

Invariant: only one thing grows from one step to the next; the slope between the first and the last
step is what is reported, so that what a program needs in any case does not count. The first step is
large enough for that: an index of many full files, a file of many chunks.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from random import Random

from benchmarks.measure import measure
from benchmarks.tools import Drctl
from drctl.domain.secret import Secret
from drctl.repository.opening import open_repository
from drctl.repository.pack import BlobType, PackedBlob
from drctl.storage.local import LocalOptions, LocalStorage

_BLOBS_A_PACK = 2_000


def by_blobs(work: Path, steps: Sequence[int]) -> dict[str, object]:
    """Back a small tree up into repositories whose index lists so many blobs more (packs that are
    never read, as an incremental never reads old packs)."""
    tree = work / "few"
    tree.mkdir(parents=True, exist_ok=True)
    (tree / "file").write_text("content")
    peaks = []
    for blobs in steps:
        tool = _fresh(work, tree)
        _fill_index(tool, work, blobs)
        peaks.append(measure(tool.backup(), tool.environment, work).peak_pss)
    return _slope("blobs", steps, peaks)


def by_file_size(work: Path, steps: Sequence[int]) -> dict[str, object]:
    """Back one file of so many bytes up, and restore it."""
    tree = work / "one"
    tree.mkdir(parents=True, exist_ok=True)
    backups, restores = [], []
    for size in steps:
        with open(tree / "file", "wb") as file:
            noise = Random(size)
            for _ in range(size // 2**20):
                file.write(noise.randbytes(2**20))
        tool = _fresh(work, tree)
        backups.append(measure(tool.backup(), tool.environment, work).peak_pss)
        target = work / "restored"
        shutil.rmtree(target, ignore_errors=True)
        restores.append(measure(tool.restore(target), tool.environment, work).peak_pss)
        shutil.rmtree(target)
    return {
        "backup": _slope("bytes", steps, backups),
        "restore": _slope("bytes", steps, restores),
    }


def _fresh(work: Path, tree: Path) -> Drctl:
    shutil.rmtree(work / "drctl", ignore_errors=True)
    tool = Drctl(work, tree)
    tool.prepare()
    return tool


def _fill_index(tool: Drctl, work: Path, blobs: int) -> None:
    key = Secret((work / "drctl" / "repository.key").read_text().rstrip("\n"))
    repository = open_repository(LocalStorage(LocalOptions(str(tool.repository))), key)
    for first in range(0, blobs, 50_000):
        packs = []
        for _ in range(first, min(first + 50_000, blobs), _BLOBS_A_PACK):
            listed = [
                PackedBlob(os.urandom(32), BlobType.DATA, number * 5000, 5000, 9000)
                for number in range(_BLOBS_A_PACK)
            ]
            packs.append((os.urandom(32), listed))
        repository.save_index(packs)


def _slope(unit: str, steps: Sequence[int], peaks: Sequence[int]) -> dict[str, object]:
    return {
        "unit": unit,
        "steps": list(steps),
        "peak_pss": list(peaks),
        f"bytes_per_{unit.rstrip('s')}": round((peaks[-1] - peaks[0]) / (steps[-1] - steps[0]), 3),
    }
