"""What is in the target already, planted or racing: never followed, never changed unasked."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from drctl.errors import LockedError, RefusedError, UnreachableError
from drctl.repository.extract import RestoreOptions, RestoreResult, apply_restore, plan_restore
from drctl.repository.extract_target import TEMPORARY, Existing, Target
from drctl.repository.selection import Selection
from drctl.repository.snapshot import Snapshot
from tests.handmade import Handmade, symlink

FRESH = RestoreOptions()
REPLACE = RestoreOptions(existing=Existing.REPLACE)
REUSE = RestoreOptions(existing=Existing.REUSE)
IN_USE = pytest.mark.parametrize("options", [REPLACE, REUSE], ids=["replace", "reuse"])


@pytest.fixture
def made(tmp_path: Path) -> Handmade:
    return Handmade(tmp_path / "repository")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A place that must not change."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/precious").write_bytes(b"keep me")
    (tmp_path / "outside/precious").chmod(0o600)
    return tmp_path / "outside"


def state(directory: Path) -> dict[str, tuple[bytes, int, int]]:
    return {
        str(path): (path.read_bytes(), path.stat().st_mode, path.stat().st_mtime_ns)
        for path in directory.rglob("*")
        if path.is_file()
    }


def restore(
    made: Handmade, snapshot: Snapshot, target: Path, options: RestoreOptions = FRESH
) -> RestoreResult:
    plan = plan_restore(made.repository, snapshot, Selection(), os.fsencode(target), options)
    return apply_restore(made.repository, plan, os.fsencode(target), options)


# --- planted


@IN_USE
def test_a_symlink_planted_for_a_directory_is_not_followed(
    made: Handmade, tmp_path: Path, outside: Path, options: RestoreOptions
) -> None:
    big = [os.urandom(300_000), os.urandom(300_000)]
    snapshot = made.snapshot(
        made.tree(
            made.folder("d", made.file("precious", b"evil"), made.file("new", *big), symlink("l", "x")),
            made.file("good", b"data"),
        )
    )
    target = tmp_path / "target"
    target.mkdir()
    (target / "d").symlink_to(outside)
    before = state(outside)
    result = restore(made, snapshot, target, options)
    assert state(outside) == before
    assert os.listdir(outside) == ["precious"]
    assert [failure.path for failure in result.failures] == [b"d"]
    assert "nothing in it was restored" in result.failures[0].message
    assert (target / "good").read_bytes() == b"data"


@IN_USE
def test_a_symlink_in_the_way_of_a_directory_goes_where_deleting_was_chosen(
    made: Handmade, tmp_path: Path, outside: Path, options: RestoreOptions
) -> None:
    snapshot = made.snapshot(made.tree(made.folder("d", made.file("precious", b"data"))))
    target = tmp_path / "target"
    target.mkdir()
    (target / "d").symlink_to(outside)
    before = state(outside)
    result = restore(made, snapshot, target, RestoreOptions(existing=options.existing, delete=True))
    assert (result.failures, result.deleted) == ((), 1)
    assert state(outside) == before
    assert (target / "d/precious").read_bytes() == b"data"


@IN_USE
@pytest.mark.parametrize("content", [b"evil", b"keep me"])
@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_link_planted_for_a_file_is_replaced_and_what_it_leads_to_untouched(
    made: Handmade,
    tmp_path: Path,
    outside: Path,
    options: RestoreOptions,
    content: bytes,
    link: Callable[[Path, Path], None],
) -> None:
    snapshot = made.snapshot(made.tree(made.file("f", content)))
    target = tmp_path / "target"
    target.mkdir()
    link(outside / "precious", target / "f")
    before = state(outside)
    assert restore(made, snapshot, target, options).failures == ()
    assert state(outside) == before
    assert (target / "f").read_bytes() == content
    assert (target / "f").lstat().st_nlink == 1
    assert stat.S_IMODE((target / "f").lstat().st_mode) == 0o644


@IN_USE
def test_a_fifo_planted_for_a_file_does_not_hang_the_restore(
    made: Handmade, tmp_path: Path, options: RestoreOptions
) -> None:
    snapshot = made.snapshot(made.tree(made.file("f", b"data"), made.file("g", b"x", b"y")))
    target = tmp_path / "target"
    target.mkdir()
    os.mkfifo(target / "f")
    os.mkfifo(target / "g")
    assert restore(made, snapshot, target, options).failures == ()
    assert ((target / "f").read_bytes(), (target / "g").read_bytes()) == (b"data", b"xy")


@IN_USE
def test_a_directory_in_the_way_of_a_file_stays_unless_deleting_was_chosen(
    made: Handmade, tmp_path: Path, options: RestoreOptions
) -> None:
    snapshot = made.snapshot(made.tree(made.file("f", b"data")))
    target = tmp_path / "target"
    (target / "f").mkdir(parents=True)
    (target / "f/mine").write_bytes(b"mine")
    assert [failure.path for failure in restore(made, snapshot, target, options).failures] == [b"f"]
    assert (target / "f/mine").read_bytes() == b"mine"
    assert os.listdir(target) == ["f"]
    deleting = RestoreOptions(existing=options.existing, delete=True)
    assert restore(made, snapshot, target, deleting).failures == ()
    assert (target / "f").read_bytes() == b"data"


# --- racing


@pytest.mark.parametrize("existing", list(Existing))
def test_a_directory_swapped_for_a_symlink_during_the_restore_is_not_followed(
    made: Handmade, tmp_path: Path, existing: Existing
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    big = [os.urandom(200_000) for _ in range(3)]
    folders = [
        made.folder(f"d{n}", made.file("f", b"%d" % n), made.file("big", *big), symlink("l", "x"))
        for n in range(60)
    ]
    snapshot = made.snapshot(made.tree(*folders))
    target = tmp_path / "target"
    stop = threading.Event()
    swapped: list[int] = []

    def swap() -> None:
        while not stop.is_set():
            for n in range(60):
                try:
                    os.rename(target / f"d{n}", target / f"was{n}-{len(swapped)}")
                    os.symlink(outside, target / f"d{n}")
                    swapped.append(n)
                except OSError:
                    continue

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        result = restore(made, snapshot, target, RestoreOptions(existing=existing))
    finally:
        stop.set()
        thread.join()
    assert swapped, "the attack did not happen"
    assert result.failures
    assert os.listdir(outside) == []


def test_a_file_swapped_for_another_during_the_restore_is_not_written_to(
    made: Handmade, tmp_path: Path, outside: Path
) -> None:
    pieces = [os.urandom(600_000), os.urandom(600_000)]
    first = made.blob(pieces[0])
    made.new_pack()
    file = made.file("f", pieces[1])
    file |= {"content": [first, *file["content"]], "size": 1_200_000}
    snapshot = made.snapshot(made.tree(file))
    target = tmp_path / "target"
    plan = plan_restore(made.repository, snapshot, Selection(), os.fsencode(target))
    before = state(outside)

    def swap_on_first_pack(*args: object) -> bytes:
        if (target / "f").lstat().st_nlink == 1:
            os.unlink(target / "f")
            os.link(outside / "precious", target / "f")
        return load(*args)  # type: ignore[arg-type]

    load = made.repository.storage.load
    made.repository.storage.load = swap_on_first_pack  # type: ignore[method-assign, assignment]
    result = apply_restore(made.repository, plan, os.fsencode(target))
    assert state(outside) == before
    assert [failure.path for failure in result.failures] == [b"f"]


@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_link_planted_in_a_fresh_target_during_the_restore_is_not_written_through(
    made: Handmade, tmp_path: Path, outside: Path, pieces: int, link: Callable[[Path, Path], None]
) -> None:
    snapshot = made.snapshot(made.tree(made.file("f", *(os.urandom(5000) for _ in range(pieces)))))
    target = tmp_path / "target"
    plan = plan_restore(made.repository, snapshot, Selection(), os.fsencode(target))
    before = state(outside)
    load = made.repository.storage.load

    def plant_first(key: str, offset: int = 0, length: int | None = None) -> bytes:
        link(outside / "precious", target / "f")
        return load(key, offset, length)

    made.repository.storage.load = plant_first  # type: ignore[method-assign]
    result = apply_restore(made.repository, plan, os.fsencode(target))
    assert state(outside) == before
    assert [failure.describe() for failure in result.failures] == ["f: File exists"]


# --- not asked


@pytest.mark.parametrize("name", ["file", ".hidden"])
def test_a_target_that_is_not_empty_is_refused_and_stays_as_it_is(
    made: Handmade, tmp_path: Path, name: str
) -> None:
    snapshot = made.snapshot(made.tree(made.file("f", b"data")))
    target = tmp_path / "target"
    target.mkdir()
    (target / name).write_bytes(b"mine")
    with pytest.raises(RefusedError, match="not empty"):
        restore(made, snapshot, target)
    assert os.listdir(target) == [name]


def test_a_target_filled_between_plan_and_restore_is_refused(made: Handmade, tmp_path: Path) -> None:
    snapshot = made.snapshot(made.tree(made.file("f", b"data")))
    target = tmp_path / "target"
    plan = plan_restore(made.repository, snapshot, Selection(), os.fsencode(target))
    target.mkdir()
    (target / "f").write_bytes(b"mine")
    with pytest.raises(RefusedError, match="not empty"):
        apply_restore(made.repository, plan, os.fsencode(target))
    assert (target / "f").read_bytes() == b"mine"


def test_a_file_system_made_just_now_counts_as_empty(made: Handmade, tmp_path: Path) -> None:
    snapshot = made.snapshot(made.tree(made.file("f", b"data")))
    (tmp_path / "target/lost+found").mkdir(parents=True)
    assert restore(made, snapshot, tmp_path / "target").failures == ()


def test_two_restores_do_not_write_to_one_target(made: Handmade, tmp_path: Path) -> None:
    snapshot = made.snapshot(made.tree(made.file("f", b"data")))
    target = tmp_path / "target"
    other = Target(os.fsencode(target), Existing.REPLACE)
    try:
        with pytest.raises(LockedError, match="another restore"):
            restore(made, snapshot, target, REPLACE)
    finally:
        other.close()
    assert restore(made, snapshot, target, REPLACE).failures == ()


@IN_USE
def test_an_interrupted_restore_leaves_the_old_file_or_the_new_one(
    made: Handmade, tmp_path: Path, options: RestoreOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = [os.urandom(600_000), os.urandom(600_000)]
    first = made.blob(pieces[0])
    made.new_pack()
    file = made.file("f", pieces[1])
    file |= {"content": [first, *file["content"]], "size": 1_200_000}
    snapshot = made.snapshot(made.tree(file))
    target = tmp_path / "target"
    target.mkdir()
    (target / "f").write_bytes(b"old")
    last = made.data_packs()[-1].name
    load = made.repository.storage.load

    def fail_late(key: str, offset: int = 0, length: int | None = None) -> bytes:
        if key.endswith(last):
            raise UnreachableError("gone")
        return load(key, offset, length)

    with monkeypatch.context() as patched:
        patched.setattr(made.repository.storage, "load", fail_late)
        with pytest.raises(UnreachableError):
            restore(made, snapshot, target, options)
    assert (target / "f").read_bytes() == b"old"
    assert os.listdir(target) == ["f"]
    assert restore(made, snapshot, target, options).failures == ()
    assert (target / "f").read_bytes() == b"".join(pieces)


@IN_USE
def test_what_a_killed_restore_left_behind_is_removed_by_the_next(
    made: Handmade, tmp_path: Path, options: RestoreOptions
) -> None:
    snapshot = made.snapshot(made.tree(made.file("f", b"data")))
    target = tmp_path / "target"
    target.mkdir()
    (target / os.fsdecode(TEMPORARY + b"0badcafe-1")).write_bytes(b"half")
    (target / "mine").write_bytes(b"mine")
    assert restore(made, snapshot, target, options).failures == ()
    assert sorted(os.listdir(target)) == ["f", "mine"]
