"""Upkeep of repositories that drctl's own backups made."""

from __future__ import annotations

import random
from pathlib import Path

from drctl.clock import SystemClock
from drctl.domain.events import ignore
from drctl.errors import ExitCode
from drctl.repository.check import check_repository
from drctl.repository.repo import FileKind
from drctl.repository.sample import Everything
from drctl.workflows.replicate import run_copy
from tests.compare import differences
from tests.workflow.backups import Place, write_tree
from tests.workflow.upkeep_cases import prune


def _three_backups(place: Place) -> None:
    write_tree(place.data)
    # an empty tree's bytes in a file, beside an empty directory: two blobs of one id
    (place.data / "looks-like-a-tree").write_bytes(b'{"nodes":[]}\n')
    (place.data / "empty").mkdir()
    for number in range(3):
        (place.data / "large").write_bytes(random.Random(number).randbytes(20_000_000))
        write_tree(place.data, seed=number)
        place.back_up()


def test_what_drctl_backed_up_and_pruned_restores_with_restic(place: Place, tmp_path: Path) -> None:
    _three_backups(place)
    repository = place.open()
    for snapshot in repository.snapshots()[:2]:
        repository.remove(FileKind.SNAPSHOT, snapshot.id or b"")
    report = prune(place.open())
    assert report.result is not None
    assert report.result.bytes_before - report.result.bytes_after > 30_000_000
    place.restic().run("check", "--read-data")
    assert differences(place.data, place.restored(tmp_path / "out"), top=True) == []
    assert check_repository(place.open(), Everything()).findings == ()
    assert place.back_up().counts.data_blobs == 0


def test_what_drctl_copied_restores_with_restic_from_the_copy(place: Place, tmp_path: Path) -> None:
    _three_backups(place)
    second = Place(tmp_path / "second", place.data)
    second.create()
    report = run_copy(place.open(), second.open(), None, SystemClock(), ignore)
    assert report.exit_code is ExitCode.OK
    second.restic().run("check", "--read-data")
    assert differences(place.data, second.restored(tmp_path / "out"), top=True) == []
    for here, there in zip(place.open().snapshots(), second.open().snapshots(), strict=True):
        assert (there.service, there.source, there.mode) == (here.service, here.source, here.mode)
        assert there.received == here.received
