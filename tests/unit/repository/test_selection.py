"""Which part of a snapshot is restored, and where it comes to lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from drctl.errors import UsageError
from drctl.repository.extract import apply_restore, plan_restore
from drctl.repository.selection import Selection
from drctl.repository.snapshot import Snapshot
from tests.handmade import Handmade


@pytest.fixture
def made(tmp_path: Path) -> Handmade:
    return Handmade(tmp_path / "repository")


@pytest.fixture
def snapshot(made: Handmade) -> Snapshot:
    home = made.folder(
        "home",
        made.folder(
            "ann",
            made.file("a.txt", b"1"),
            made.file("a.log", b"2"),
            made.folder("deep", made.file("b.txt", b"3")),
        ),
        made.folder("anna", made.file("c.txt", b"4")),
    )
    return made.snapshot(
        made.tree(home, made.folder("etc", made.file("hosts", b"5")), made.file("top", b"6"))
    )


ALL = {"home", "home/ann", "home/ann/a.txt", "home/ann/a.log", "home/ann/deep", "home/ann/deep/b.txt",
       "home/anna", "home/anna/c.txt", "etc", "etc/hosts", "top"}  # fmt: skip
ANN = {"home", "home/ann", "home/ann/a.txt", "home/ann/a.log", "home/ann/deep", "home/ann/deep/b.txt"}

CASES = {
    "everything": (Selection(), ALL),
    "a directory under its full path": (Selection(paths=(b"/home/ann",)), ANN),
    "a path with slashes too many": (Selection(paths=(b"//home//ann/",)), ANN),
    "a file": (Selection(paths=(b"/etc/hosts",)), {"etc", "etc/hosts"}),
    "several": (
        Selection(paths=(b"/etc", b"/home/anna/c.txt")),
        {"etc", "etc/hosts", "home", "home/anna", "home/anna/c.txt"},
    ),
    "the root by name": (Selection(paths=(b"/",)), ALL),
    "without some": (Selection(exclude=("/home", "top")), {"etc", "etc/hosts"}),
    "without a pattern": (Selection(paths=(b"/home/ann",), exclude=("*.log",)), ANN - {"home/ann/a.log"}),
    "directories only by a slash": (Selection(exclude=("top/", "etc/")), ALL - {"etc", "etc/hosts"}),
    "an exclude taken back": (
        Selection(exclude=("*.txt", "!a.txt")),
        ALL - {"home/ann/deep/b.txt", "home/anna/c.txt"},
    ),
    "only a pattern": (
        Selection(include=("*.txt",)),
        {
            "home",
            "home/ann",
            "home/ann/a.txt",
            "home/ann/deep",
            "home/ann/deep/b.txt",
            "home/anna",
            "home/anna/c.txt",
        },
    ),
    "only a directory by pattern": (
        Selection(include=("deep/",)),
        {"home", "home/ann", "home/ann/deep", "home/ann/deep/b.txt"},
    ),
    "includes within a path": (
        Selection(paths=(b"/home/anna",), include=("*.txt",)),
        {"home", "home/anna", "home/anna/c.txt"},
    ),
    "excludes win": (
        Selection(include=("*.txt",), exclude=("deep",)),
        {"home", "home/ann", "home/ann/a.txt", "home/anna", "home/anna/c.txt"},
    ),
    "nothing matches": (Selection(include=("*.nothing",)), set()),
    "a directory as the target": (Selection(root=b"/home/ann"), {"a.txt", "a.log", "deep", "deep/b.txt"}),
    "a part of a directory as the target": (
        Selection(root=b"/home", paths=(b"/home/ann/deep",)),
        {"ann", "ann/deep", "ann/deep/b.txt"},
    ),
    "one file in the target": (Selection(root=b"/home/ann/a.txt"), {"a.txt"}),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_selected_is_restored_and_nothing_else(
    made: Handmade, snapshot: Snapshot, tmp_path: Path, case: str
) -> None:
    selection, expected = CASES[case]
    target = tmp_path / "target"
    plan = plan_restore(made.repository, snapshot, selection, os.fsencode(target))
    assert apply_restore(made.repository, plan, os.fsencode(target)).failures == ()
    assert {str(path.relative_to(target)) for path in target.rglob("*")} == expected
    assert plan.entries == len(expected)


@pytest.mark.parametrize(
    "selection",
    [Selection(paths=(b"/home/nobody",)), Selection(paths=(b"/top/below",)), Selection(root=b"/nowhere"),
     Selection(root=b"/top/below"), Selection(paths=(b"home",)), Selection(paths=(b"/etc",), root=b"/home"),
     Selection(root=b"relative"), Selection(paths=(b"/etc\0",))],
)  # fmt: skip
def test_a_path_that_is_not_in_the_snapshot_is_an_error_before_anything_is_written(
    made: Handmade, snapshot: Snapshot, tmp_path: Path, selection: Selection
) -> None:
    with pytest.raises(UsageError):
        plan_restore(made.repository, snapshot, selection, os.fsencode(tmp_path / "target"))
    assert not (tmp_path / "target").exists()


def test_a_directory_that_becomes_the_target_gives_it_its_metadata(made: Handmade, tmp_path: Path) -> None:
    folder = made.folder("d", made.file("f", b"x")) | {"mode": 1 << 31 | 0o751}
    snapshot = made.snapshot(made.tree(folder))
    target = tmp_path / "target"
    plan = plan_restore(made.repository, snapshot, Selection(root=b"/d"), os.fsencode(target))
    apply_restore(made.repository, plan, os.fsencode(target))
    assert target.stat().st_mode & 0o7777 == 0o751
    assert target.stat().st_mtime_ns == 1767323045123456789
