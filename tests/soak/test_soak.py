"""One process that backs up, restores, forgets, prunes and checks over and over stays as it was.

`make soak` runs it for DRCTL_SOAK_CYCLES rounds (thousands); `make test` for a few, which finds what
leaks every time.
"""

from __future__ import annotations

import gc
import os
import shutil
from pathlib import Path
from typing import NamedTuple

from drctl.clock import SystemClock
from drctl.domain.events import ignore
from drctl.repository.prune import parse_unused_limit
from drctl.repository.repo import FileKind
from drctl.repository.sample import Everything
from drctl.workflows.check import run_check
from drctl.workflows.prune import run_prune
from drctl.workflows.restore import RestoreRequest, run_restore
from tests.workflow.backups import Place, write_tree

WARM_UP = 5
CYCLES = int(os.environ.get("DRCTL_SOAK_CYCLES", "15"))
KEPT = 3


class Footprint(NamedTuple):
    """What a process holds of its machine."""

    resident_bytes: int
    descriptors: int
    threads: int


def _footprint() -> Footprint:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    threads = len(os.listdir("/proc/self/task"))
    return Footprint(pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd")), threads)


def _cycle(place: Place, target: Path, number: int) -> None:
    clock = SystemClock()
    (place.data / "changing").write_bytes(os.urandom(3_000_000) + str(number).encode())
    place.back_up(full=number % 4 == 0)
    repository = place.open()
    report = run_restore(repository, RestoreRequest(str(target), verify=True), clock, ignore, lambda: None)
    assert report.error() is None
    shutil.rmtree(target)
    snapshots = sorted(repository.snapshots(), key=lambda snapshot: snapshot.time)
    for snapshot in snapshots[:-KEPT]:
        assert snapshot.id is not None
        repository.remove(FileKind.SNAPSHOT, snapshot.id)
    run_prune(place.open(), parse_unused_limit("0"), lambda plan: True, clock, ignore)
    assert not run_check(place.open(), Everything(), 0, clock, ignore).is_damaged


def test_memory_descriptors_and_threads_do_not_grow_with_the_number_of_runs(tmp_path: Path) -> None:
    place = Place(tmp_path / "repository", tmp_path / "data")
    place.create()
    write_tree(place.data)
    for number in range(WARM_UP):
        _cycle(place, tmp_path / "target", number)
    before = _footprint()
    for number in range(CYCLES):
        _cycle(place, tmp_path / "target", number)
    after = _footprint()
    assert after.descriptors == before.descriptors
    assert after.threads == before.threads
    assert after.resident_bytes <= before.resident_bytes * 1.05
    assert len(place.open().snapshots()) == KEPT
