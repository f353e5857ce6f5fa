"""Restoring over what is there: what is right stays, what is not is replaced, what is asked goes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from drctl.errors import ExitCode
from drctl.repository.extract import (
    RestoreOptions,
    RestoreResult,
    apply_restore,
    plan_restore,
    verify_restore,
)
from drctl.repository.extract_plan import Failure, RestorePlan
from drctl.repository.extract_target import Existing
from drctl.repository.selection import Selection
from drctl.repository.snapshot import Snapshot
from tests.compare import differences
from tests.handmade import Handmade, node, symlink

FRESH, ALL = RestoreOptions(), Selection()
REUSE = RestoreOptions(existing=Existing.REUSE)


@pytest.fixture
def made(tmp_path: Path) -> Handmade:
    return Handmade(tmp_path / "repository")


class Place:
    """A target that is restored to again and again."""

    def __init__(self, made: Handmade, snapshot: Snapshot, directory: Path) -> None:
        self.made, self.snapshot, self.directory = made, snapshot, directory
        self.target = os.fsencode(directory)

    def restore(
        self, options: RestoreOptions = FRESH, selection: Selection = ALL
    ) -> tuple[RestorePlan, RestoreResult]:
        plan = plan_restore(self.made.repository, self.snapshot, selection, self.target, options)
        return plan, apply_restore(self.made.repository, plan, self.target, options)

    def verify(self, plan: RestorePlan, options: RestoreOptions = FRESH) -> tuple[Failure, ...]:
        return verify_restore(self.made.repository, plan, self.target, options)


@pytest.fixture
def place(made: Handmade, tmp_path: Path) -> Place:
    blocks = [os.urandom(50_000) for _ in range(8)]
    linked = {"links": 2, "inode": 5, "device_id": 1}
    tree = made.tree(
        made.file("big", *blocks),
        made.folder("d", made.file("small", b"small"), symlink("l", "small"), made.file("empty")),
        made.file("one", b"linked") | linked,
        made.file("two", b"linked") | linked,
        node("pipe", "fifo", mode=1 << 25 | 0o640, links=1),
    )
    return Place(made, made.snapshot(tree), tmp_path / "target")


def test_a_second_delta_restore_writes_nothing(place: Place, tmp_path: Path) -> None:
    place.restore()
    before = {path: path.lstat().st_ino for path in place.directory.rglob("*") if path.is_file()}
    plan, result = place.restore(REUSE)
    assert (result.bytes_written, result.failures, plan.bytes_kept) == (0, (), plan.bytes)
    assert {path: path.lstat().st_ino for path in place.directory.rglob("*") if path.is_file()} == before
    assert place.verify(plan) == ()


def test_only_the_blobs_that_differ_are_read(place: Place, tmp_path: Path) -> None:
    plan, _ = place.restore()
    with open(place.directory / "big", "r+b") as file:
        file.seek(125_000)
        file.write(b"damage")
    plan, result = place.restore(REUSE)
    assert (result.bytes_written, result.failures) == (50_000, ())
    assert place.verify(plan) == ()


@pytest.mark.parametrize("length", [0, 60_000, 400_010])
def test_a_file_of_another_length_is_completed(place: Place, length: int) -> None:
    place.restore()
    os.truncate(place.directory / "big", length)
    plan, result = place.restore(REUSE)
    assert result.failures == ()
    assert result.bytes_written == max(0, 400_000 - length // 50_000 * 50_000)
    assert place.verify(plan) == ()


def test_equal_size_and_times_do_not_hide_other_content(place: Place) -> None:
    place.restore()
    path = place.directory / "d/small"
    times = path.stat()
    path.write_bytes(b"SMALL")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    plan, _ = place.restore(REUSE)
    assert path.read_bytes() == b"small"
    assert place.verify(plan) == ()


def test_metadata_that_differs_is_set_right_without_writing(place: Place) -> None:
    place.restore()
    path = place.directory / "d/small"
    path.chmod(0o600)
    os.utime(path, (1, 1))
    os.setxattr(path, "user.mine", b"x")
    plan, result = place.restore(REUSE)
    assert (result.bytes_written, result.failures) == (0, ())
    assert place.verify(plan) == ()
    assert os.listxattr(path) == []


def test_a_broken_hard_link_is_joined_again(place: Place) -> None:
    place.restore()
    (place.directory / "two").unlink()
    (place.directory / "two").write_bytes(b"linked")
    plan, result = place.restore(REUSE)
    assert result.failures == ()
    assert (place.directory / "one").samefile(place.directory / "two")
    assert place.verify(plan) == ()


def test_extra_files_stay_unless_deleting_was_chosen(place: Place) -> None:
    place.restore()
    (place.directory / "extra").mkdir()
    (place.directory / "extra/x").write_bytes(b"x")
    (place.directory / "d/y").write_bytes(b"y")
    plan, result = place.restore(REUSE)
    assert (plan.deletions, result.deleted) == ((), 0)
    assert (place.directory / "d/y").exists()
    plan, result = place.restore(RestoreOptions(existing=Existing.REUSE, delete=True))
    assert [(plan.nodes.path(one.directory), one.name) for one in plan.deletions] == [
        (b".", b"extra"),
        (b"d", b"y"),
    ]
    assert result.deleted == 2
    assert sorted(os.listdir(place.directory)) == ["big", "d", "one", "pipe", "two"]


def test_deleting_keeps_to_what_was_selected(place: Place) -> None:
    place.restore()
    for name in ("extra", "d/y", "d/z.log"):
        (place.directory / name).write_bytes(b"mine")
    options = RestoreOptions(existing=Existing.REUSE, delete=True)
    place.restore(options, Selection(paths=(b"/d",), exclude=("*.log",)))
    assert (place.directory / "extra").exists()
    assert (place.directory / "d/z.log").exists()
    assert not (place.directory / "d/y").exists()


def test_planning_changes_nothing(place: Place, tmp_path: Path) -> None:
    place.restore()
    (place.directory / "big").write_bytes(b"other")
    (place.directory / "extra").write_bytes(b"x")
    copy = tmp_path / "copy"
    os.system(f"cp -a {place.directory} {copy}")
    options = RestoreOptions(existing=Existing.REUSE, delete=True)
    plan_restore(place.made.repository, place.snapshot, Selection(), place.target, options)
    assert differences(copy, place.directory) == []


# --- verifying


@pytest.mark.parametrize(
    ("name", "words"),
    [("big", "content from byte 100000 on"), ("d/small", "5 bytes rather than"), ("d/l", "link target"),
     ("d/empty", "mode"), ("two", "not a hard link"), ("pipe", "type"), ("one", "cannot be read back"),
     ("d", "mtime")],
)  # fmt: skip
def test_verifying_finds_what_was_changed_and_names_it(place: Place, name: str, words: str) -> None:
    plan, _ = place.restore()
    assert place.verify(plan) == ()
    path = place.directory / name
    times = path.lstat()
    if name == "big":
        with open(path, "r+b") as file:
            file.seek(120_000)
            file.write(b"x")
    elif name == "d/empty":
        path.chmod(0o666)
    elif name != "d":
        path.unlink()
        if name == "d/small":
            path.write_bytes(b"longer than it was")
        elif name == "d/l":
            path.symlink_to("elsewhere")
        elif name == "two":
            path.write_bytes(b"linked")
        elif name == "pipe":
            path.write_bytes(b"")
    if name not in ("d", "one"):
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns), follow_symlinks=False)
    else:
        os.utime(place.directory / "d", (1, 1))
    found = {failure.path: failure for failure in place.verify(plan)}
    failure = found[os.fsencode(name)]
    assert failure.exit_code is ExitCode.VERIFICATION_FAILED
    assert "differs from the snapshot" in failure.message
    assert words.replace("5 bytes", "18 bytes") in failure.message


def test_a_piece_that_changes_after_it_was_compared_is_not_taken_over(place: Place) -> None:
    place.restore()
    with open(place.directory / "big", "r+b") as file:
        file.write(b"differs")
    plan = plan_restore(place.made.repository, place.snapshot, Selection(), place.target, REUSE)
    with open(place.directory / "big", "r+b") as file:
        file.seek(300_000)
        file.write(b"meddled")
    result = apply_restore(place.made.repository, plan, place.target, REUSE)
    assert [failure.describe() for failure in result.failures] == [
        "big: was changed by somebody while it was being restored"
    ]
    assert sorted(os.listdir(place.directory)) == ["big", "d", "one", "pipe", "two"]
