"""What stock restic backed up, restored by drctl: the same as the source and as restic's restore."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from drctl.clock import SystemClock
from drctl.domain.events import ignore
from drctl.domain.secret import Secret
from drctl.errors import ExitCode
from drctl.repository.extract import RestoreOptions
from drctl.repository.extract_target import Existing
from drctl.repository.opening import open_repository
from drctl.repository.repo import Repository
from drctl.storage.local import LocalOptions, LocalStorage
from drctl.workflows.restore import RestoreReport, RestoreRequest, run_restore
from tests.compare import differences
from tests.format.goldens import NAMES, open_golden, unpack
from tests.restics import PASSWORD, Restic, restic_programs
from tests.rich_tree import make_rich_tree


def _restore(repository: Repository, target: Path, **changes: object) -> RestoreReport:
    request = RestoreRequest(str(target), verify=True, **changes)  # type: ignore[arg-type]
    return run_restore(repository, request, SystemClock(), ignore, lambda: None)


def _open(directory: Path) -> Repository:
    return open_repository(LocalStorage(LocalOptions(str(directory))), Secret(PASSWORD))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("source") / "top"
    top.mkdir()
    make_rich_tree(top)
    return top


def test_some_restic_is_there_to_judge_by() -> None:
    assert restic_programs(), "install restic: apt-get install restic"


@pytest.mark.parametrize("program", restic_programs())
def test_everything_restic_backed_up_comes_back_as_it_was(program: str, source: Path, tmp_path: Path) -> None:
    restic = Restic(program, tmp_path / "repository")
    restic.run("init")
    restic.run("backup", str(source))
    report = _restore(_open(restic.repository), tmp_path / "ours")
    assert (report.failures, report.exit_code, report.verified) == ((), ExitCode.OK, True)
    ours = tmp_path / "ours" / source.relative_to("/")
    # restic 0.14 stores a link target that is not UTF-8 with its bytes replaced
    lost = ("links/not-utf8: ",) if restic.version() < (0, 16) else ()
    assert [line for line in differences(source, ours, top=True) if not line.startswith(lost)] == []
    restic.run("restore", "latest", "--target", str(tmp_path / "theirs"))
    theirs = tmp_path / "theirs" / source.relative_to("/")
    assert differences(theirs, ours, top=True) == []
    # another judge than our own; special files are in the comparison above
    command = ["diff", "-r", "--no-dereference", "-x", "pipe", "-x", "null", "-x", "disk"]
    assert subprocess.run([*command, theirs, ours], capture_output=True, check=False).stdout == b""


@pytest.mark.parametrize("name", NAMES)
def test_repositories_of_every_restic_restore_and_verify(name: str, tmp_path: Path) -> None:
    repository = open_golden(name, unpack(name, tmp_path))
    report = _restore(repository, tmp_path / "target")
    assert (report.failures, report.verified) == ((), True)
    assert report.files > 0


def test_holes_come_back_where_they_are_asked_for(source: Path, tmp_path: Path) -> None:
    restic = Restic(restic_programs()[-1], tmp_path / "repository")
    restic.run("init")
    restic.run("backup", str(source))
    repository = _open(restic.repository)
    report = _restore(repository, tmp_path / "sparse", options=RestoreOptions(sparse=True))
    assert report.failures == ()
    # restic 0.14 stores a link target that is not UTF-8 with its bytes replaced
    lost = ("links/not-utf8: ",) if restic.version() < (0, 16) else ()
    found = differences(source, tmp_path / "sparse" / source.relative_to("/"), sparse=True)
    assert [line for line in found if not line.startswith(lost)] == []
    over = RestoreOptions(sparse=True, existing=Existing.REPLACE)
    assert _restore(repository, tmp_path / "sparse", options=over).failures == ()
    # restic 0.14 stores a link target that is not UTF-8 with its bytes replaced
    lost = ("links/not-utf8: ",) if restic.version() < (0, 16) else ()
    found = differences(source, tmp_path / "sparse" / source.relative_to("/"), sparse=True)
    assert [line for line in found if not line.startswith(lost)] == []


def test_the_default_writes_zeros_as_zeros(source: Path, tmp_path: Path) -> None:
    restic = Restic(restic_programs()[-1], tmp_path / "repository")
    restic.run("init")
    restic.run("backup", str(source / "sparse"))
    _restore(_open(restic.repository), tmp_path / "full")
    restored = tmp_path / "full" / (source / "sparse").relative_to("/")
    assert os.stat(restored).st_blocks * 512 >= 30_000_000
