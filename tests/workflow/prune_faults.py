"""Faults in a prune: at each storage operation within this process, at each system call by strace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from drctl.errors import StorageError
from drctl.ports import Buffer
from drctl.repository.index_writer import IndexWriter
from drctl.repository.prune import Fate
from drctl.repository.repo import FileKind
from drctl.storage.local import LocalOptions, LocalStorage
from tests import restic
from tests.format.goldens import NEWEST, unpack
from tests.workflow.upkeep_cases import assert_clean, cheapen, contents, forget, open_local, prune

JUDGE = restic.PROGRAMS[0]


def prepare(place: Path) -> tuple[Path, dict[str, str]]:
    """A repository with something to repack and something to remove, and what must stay in it."""
    directory = unpack(NEWEST, place)
    cheapen(directory)
    stray = directory / "data" / "ab" / ("ab" * 32)
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"left by a killed backup")
    os.utime(stray, (1, 1))
    repository = open_local(directory)
    forget(repository, 0)
    return directory, contents(JUDGE, directory, place)


def assert_sound(directory: Path) -> None:
    """Stock restic finds every snapshot complete; unreferenced packs and double index entries pass."""
    done = restic.try_to(JUDGE, directory, ["check", "--no-lock"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no errors were found" in done.stdout


def assert_finishes(directory: Path, place: Path, expected: dict[str, str]) -> None:
    """Another prune does what the broken one did not, and nothing is lost."""
    prune(open_local(directory))
    assert prune(open_local(directory)).plan.is_empty
    restic.assert_accepts(JUDGE, directory)
    assert contents(JUDGE, directory, place) == expected
    assert_clean(directory)


class FaultAtOperation(LocalStorage):
    """Calls `fault` instead of the `at`-th save or delete (locks are counted, too)."""

    def __init__(self, options: LocalOptions, at: int, fault: Callable[[], None]) -> None:
        super().__init__(options)
        self.at = at
        self.done = 0
        self._fault = fault

    def _count(self) -> None:
        self.done += 1
        if self.done == self.at:
            self._fault()

    def save(self, key: str, parts: Sequence[Buffer]) -> None:
        self._count()
        super().save(key, parts)

    def delete(self, key: str) -> None:
        self._count()
        super().delete(key)


def die() -> None:
    """As kill -9."""
    os.kill(os.getpid(), signal.SIGKILL)


def fail() -> None:
    """As a disk that is full or broken."""
    raise StorageError("injected: no space left on device")


def victim(directory: Path, at: int, fault: Callable[[], None], run: Callable[[Path], object]) -> int:
    """Prune in a process of its own; its exit status: 0 when there was no such operation, 1 failed,
    -9 killed, 4 when the prune did without it (a lock file that could not be removed)."""
    child = os.fork()
    if child == 0:
        status = 2
        try:
            status = _prune_with_fault(directory, at, fault, run)
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _prune_with_fault(
    directory: Path, at: int, fault: Callable[[], None], run: Callable[[Path], object]
) -> int:
    global _faulty  # noqa: PLW0603 - of the forked child alone
    _faulty = FaultAtOperation(LocalOptions(str(directory)), at, fault)
    try:
        run(directory)
    except StorageError:
        return 1
    return 4 if _faulty.done >= at else 0


_faulty: FaultAtOperation | None = None


def prune_honestly(directory: Path) -> None:
    """The prune that is tested."""
    repository = open_local(directory)
    if _faulty is not None:
        repository.storage = _faulty
    prune(repository)


def prune_in_the_wrong_order(directory: Path) -> None:
    """The positive control: it deletes old packs before the new index is written."""
    from drctl.repository import repack

    original_delete, original_write = repack._delete, repack._write_index

    def early(job: repack._Job, index: IndexWriter) -> list[bytes]:
        removed = [v.id for v in job.plan.packs(Fate.REPACK, Fate.REMOVE)]
        original_delete(job, "old packs", FileKind.PACK, removed)
        return original_write(job, index)

    repack._write_index = early
    prune_honestly(directory)


# --- system calls

# calls that nothing but the storage makes (and multiprocessing's semaphores, with no harm)
CALLS = ("fsync", "renameat2", "unlink")
FAULTS = ("KILL", "EIO", "ENOSPC")


def prune_under_strace(
    directory: Path, call: str, fault: str, when: int, script: str = "prune_honestly"
) -> int:
    """Run a prune with a fault injected into the `when`-th such call of each thread. Returns the exit
    code of the victim, 137 or -9 when killed."""
    inject = "signal=KILL" if fault == "KILL" else f"error={fault}"
    python = (
        f"from pathlib import Path; from tests.workflow.prune_faults import {script};"
        f"{script}(Path({str(directory)!r}))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        ["strace", "-f", "-qqq", "-o", "/dev/null", "-e", f"trace={call}",
         "-e", f"inject={call}:{inject}:when={when}", sys.executable, "-c", python],
        env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    return done.returncode
