"""A disk that is full, out of inodes or read-only: told in a line, and older data stays (safety 3, 12)."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from drctl.errors import ExitCode
from tests.compare import differences
from tests.faults.flows import FLOWS
from tests.faults.scene import Done, Scene, make_scene
from tests.faults.verdict import badly_told, damages

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@contextmanager
def _mounted(place: Path, options: str) -> Iterator[Path]:
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def _remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", place], check=True)


@pytest.fixture
def place() -> Iterator[Scene]:
    """A scene of its own, without the large file."""
    with tempfile.TemporaryDirectory(prefix="drctl-full-") as base:
        yield make_scene(Path(base) / "scene", large=False)


@contextmanager
def _repository_on(scene: Scene, options: str) -> Iterator[Path]:
    with _mounted(scene.base / "disk", options) as disk:
        shutil.copytree(scene.repository, disk / "repository")
        shutil.rmtree(scene.repository)
        scene.repository.symlink_to(disk / "repository")
        yield disk


def _failed(done: Done, reason: str) -> None:
    assert done.code == ExitCode.FAILED, done
    assert badly_told(done) == []
    assert reason in done.err, done.err
    assert "hint:" in done.err, done.err
    assert len(done.err.splitlines()) <= 4, done.err


@pytest.mark.parametrize("full", [False, True])
def test_a_full_repository_fails_the_backup_and_a_rerun_continues_once_there_is_space(
    place: Scene, full: bool
) -> None:
    (place.tree / "large").write_bytes(random.Random(1).randbytes(30_000_000))
    with _repository_on(place, "size=20m") as disk:
        _failed(place.run("backup", "run", *(["--full"] if full else [])), "no space left on device")
        assert len(place.snapshots()) == 3
        assert damages(place, FLOWS["backup"]) == []
        _remount(disk, "size=80m")
        again = place.run("backup", "run")
        assert again.code == 0, again.err
        assert FLOWS["backup"].undone(place) == []
        assert damages(place, FLOWS["backup"]) == []


def test_a_repository_out_of_inodes_fails_the_backup_and_a_rerun_continues(place: Scene) -> None:
    for number in range(300):
        (place.tree / f"more{number}").write_bytes(random.Random(number).randbytes(100_000))
    with _repository_on(place, "size=200m,nr_inodes=2000") as disk:
        used = 2000 - os.statvfs(disk).f_ffree
        _remount(disk, f"nr_inodes={used + 2}")  # the lock, and hardly more
        _failed(place.run("backup", "run"), "no space left on device")
        assert damages(place, FLOWS["backup"]) == []
        _remount(disk, "nr_inodes=2000")
        assert place.run("backup", "run").code == 0
        assert FLOWS["backup"].undone(place) == []


def test_prune_of_a_full_repository_fails_or_frees_and_loses_nothing(place: Scene) -> None:
    flow = FLOWS["prune"]
    flow.prepare(place)
    with _repository_on(place, "size=80m") as disk:
        (disk / "filler").write_bytes(b"")
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize
        with (disk / "filler").open("wb") as filler:
            filler.write(bytes(free - 8192))  # room for a lock
        done = place.run(*flow.words(place))
        if done.code:
            _failed(done, "no space left on device")
        assert damages(place, flow) == []
        (disk / "filler").unlink()
        assert place.run(*flow.words(place)).code == 0
        assert flow.undone(place) == []


def test_a_repository_that_turned_read_only_is_told_as_such(place: Scene) -> None:
    with _repository_on(place, "size=80m") as disk:
        _remount(disk, "ro")
        for flow in ("backup", "forget", "prune", "key-add"):
            words = FLOWS[flow].words(place)
            _failed(place.run(*words), "read-only file system")
        restored = place.run(*FLOWS["restore"].words(place), "--no-lock")
        assert restored.code == 0, restored.err
        assert damages(place, FLOWS["backup"]) == []


def test_a_target_that_fills_up_fails_the_restore_and_a_rerun_ends_it(place: Scene) -> None:
    expected = list(place.expected().values())[-1]
    with _mounted(place.target, "size=200k") as target:
        done = place.run(*FLOWS["restore"].words(place))
        assert done.code not in (0, ExitCode.CORRUPT), done
        assert badly_told(done) == []
        assert "no space left on device" in done.err.lower()
        _remount(target, "size=80m")
        again = place.run(*FLOWS["restore"].retries(place)[0])
        assert again.code == 0, again.err
        assert differences(expected, Path(f"{target}{place.tree}")) == []


def test_a_full_target_never_leaves_half_a_file_under_its_name_in_a_delta_restore(place: Scene) -> None:
    older, newest = (list(place.expected().values())[number] for number in (0, -1))
    with _mounted(place.target, "size=80m") as target:
        below = Path(f"{target}{place.tree}")
        below.parent.mkdir(parents=True)
        shutil.copytree(older, below, symlinks=True)
        free = os.statvfs(target).f_bavail * os.statvfs(target).f_bsize
        with (target / "filler").open("wb") as filler:
            filler.write(bytes(free - 100_000))
        done = place.run(*FLOWS["restore"].words(place), "--delta", "--yes")
        assert done.code not in (0, ExitCode.CORRUPT), done
        assert badly_told(done) == []
        assert halves(below, (older, newest)) == []


def halves(target: Path, states: tuple[Path, ...]) -> list[str]:
    """Files below `target` that are in none of the states of their path."""
    return [
        str(path)
        for path in sorted(target.rglob("*"))
        if path.is_file() and not path.is_symlink() and not path.name.startswith(".drctl")
        if path.read_bytes()
        not in [
            (state / path.relative_to(target)).read_bytes()
            for state in states
            if (state / path.relative_to(target)).is_file()
        ]
    ]
