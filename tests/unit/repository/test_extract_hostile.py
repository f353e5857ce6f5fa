"""Hostile and damaged snapshots: nothing outside the target, one line that names what is wrong."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import orjson
import pytest
import zstandard

from drctl.errors import CorruptError, DrctlError, ExitCode
from drctl.repository import node_table
from drctl.repository.extract import RestoreResult, apply_restore, plan_restore
from drctl.repository.ids import hash_of
from drctl.repository.pack import BlobType, PackedBlob
from drctl.repository.selection import Selection
from drctl.repository.snapshot import Snapshot
from tests.handmade import GO_DIRECTORY, Handmade, Json, node, symlink


@pytest.fixture
def made(tmp_path: Path) -> Handmade:
    return Handmade(tmp_path / "repository")


def restore(made: Handmade, snapshot: Snapshot, target: Path) -> RestoreResult:
    plan = plan_restore(made.repository, snapshot, Selection(), os.fsencode(target))
    return apply_restore(made.repository, plan, os.fsencode(target))


def everything(directory: Path, *, but: tuple[str, ...] = ()) -> set[str]:
    return {
        os.path.relpath(os.path.join(where, name), directory)
        for where, folders, names in os.walk(directory)
        for name in folders + names
        if os.path.relpath(os.path.join(where, name), directory).split("/")[0] not in but
    }


@pytest.mark.parametrize(
    "name",
    ["..", ".", "", "/", "/etc/drctl-was-here", "../escaped", "a/../../escaped", "nul\0byte", r"\x2e\x2e",
     r"..\x2fescaped", r"\056\056", "../" * 40 + "tmp/drctl-was-here"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["file", "dir", "symlink"])
def test_a_name_that_leaves_its_directory_is_refused_and_the_rest_restored(
    made: Handmade, tmp_path: Path, name: str, kind: str
) -> None:
    hostile = {
        "file": lambda: made.file(name, b"evil"),
        "dir": lambda: made.folder(name, made.file("inner", b"evil")),
        "symlink": lambda: symlink(name, "/etc"),
    }[kind]()
    snapshot = made.snapshot(made.tree(made.file("good", b"data"), made.folder("bad", hostile)))
    before = everything(tmp_path, but=("target",))
    result = restore(made, snapshot, tmp_path / "target")
    assert everything(tmp_path, but=("target",)) == before
    assert everything(tmp_path / "target") == {"good", "bad"}
    (failure,) = result.failures
    assert failure.path == b"bad"
    assert failure.exit_code is ExitCode.CORRUPT
    assert "hostile or malformed entry name" in failure.message
    assert "\n" not in failure.describe()


def test_a_hostile_name_in_the_root_ends_the_restore(made: Handmade, tmp_path: Path) -> None:
    snapshot = made.snapshot(made.tree(made.file("../escaped", b"evil")))
    with pytest.raises(CorruptError, match="hostile or malformed entry name"):
        restore(made, snapshot, tmp_path / "target")
    assert not (tmp_path / "target").exists()
    assert not (tmp_path / "escaped").exists()


def test_a_directory_below_a_symlink_of_the_same_name_is_refused(made: Handmade, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    snapshot = made.snapshot(
        made.tree(
            made.folder("bad", symlink("x", str(outside)), made.folder("x", made.file("evil", b"evil"))),
            made.file("good", b"data"),
        )
    )
    result = restore(made, snapshot, tmp_path / "target")
    assert everything(outside) == set()
    assert [failure.path for failure in result.failures] == [b"bad"]
    assert "two entries of the same name" in result.failures[0].message
    assert (tmp_path / "target/good").read_bytes() == b"data"


@pytest.mark.parametrize("field", ["mtime", "uid", "gid", "size", "mode", "content", "name", "type"])
@pytest.mark.parametrize("value", [None, -1, 2**63, 2**70, "x", 1.5, True, [], ["zz"], {"a": 1}])
def test_a_node_with_a_malformed_field_is_told_and_the_rest_restored(
    made: Handmade, tmp_path: Path, field: str, value: object
) -> None:
    hostile = made.file("evil", b"evil") | {field: value}
    tree = made.tree(made.file("good", b"data"), made.folder("bad", made.file("first", b"1"), hostile))
    result = restore(made, made.snapshot(tree), tmp_path / "target")
    assert (tmp_path / "target/good").read_bytes() == b"data"
    assert result.failures or (field, value) == ("name", "x")
    assert all(failure.path.startswith(b"bad") for failure in result.failures)
    assert all("\n" not in failure.describe() for failure in result.failures)


def test_directories_nested_10000_deep_are_a_bounded_error(made: Handmade, tmp_path: Path) -> None:
    tree = made.tree(made.file("bottom", b"data"))
    for _ in range(10_000):
        tree = made.tree(node("d", "dir", mode=GO_DIRECTORY | 0o755, subtree=tree))
    with pytest.raises(CorruptError, match="nest deeper than 4096"):
        restore(made, made.snapshot(tree), tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_directories_nested_3000_deep_come_back(made: Handmade, tmp_path: Path) -> None:
    try:
        _restore_3000_deep(made, tmp_path)
    finally:
        # pytest's own cleaning up does not come that deep
        subprocess.run(["rm", "-rf", str(tmp_path / "target")], check=True)


def _restore_3000_deep(made: Handmade, tmp_path: Path) -> None:
    tree = made.tree(made.file("bottom", b"data"))
    for _ in range(3000):
        tree = made.tree(node("d", "dir", mode=GO_DIRECTORY | 0o755, subtree=tree))
    result = restore(made, made.snapshot(tree), tmp_path / "target")
    assert result.failures == ()
    here = os.open(tmp_path / "target", os.O_PATH)
    for _ in range(3000):
        below = os.open("d", os.O_PATH | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    assert os.stat("bottom", dir_fd=here).st_size == 4
    os.close(here)
    # pytest cannot remove it, and would fail three runs later
    subprocess.run(["rm", "-rf", tmp_path / "target"], check=True)


def test_a_tree_that_contains_itself_is_a_bounded_error(
    made: Handmade, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = made.tree(made.file("f", b"data"))
    snapshot = made.snapshot(tree)
    # no hash can be in what it is the hash of: only a reader that does not hash meets a cycle
    cycle = [node(name, "dir", mode=GO_DIRECTORY | 0o755, subtree=tree) for name in ("a", "b")]
    monkeypatch.setattr(made.repository, "load_tree", lambda _: orjson.dumps({"nodes": cycle}))
    with pytest.raises(CorruptError, match="nest deeper than 4096"):
        restore(made, snapshot, tmp_path / "target")


def test_a_small_snapshot_that_unfolds_without_end_is_a_bounded_error(
    made: Handmade, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_table, "MAX_ENTRIES", 5000)
    tree = made.tree(made.file("f", b"data"))
    for _ in range(64):  # 2**64 directories
        tree = made.tree(*(node(n, "dir", mode=GO_DIRECTORY | 0o755, subtree=tree) for n in "ab"))
    begun = time.monotonic()
    with pytest.raises(CorruptError, match="more than 5000 entries"):
        restore(made, made.snapshot(tree), tmp_path / "target")
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize("said", [0, 3, 5, 2**40])
def test_a_size_that_is_not_the_contents_is_told_and_the_file_left_out(
    made: Handmade, tmp_path: Path, said: int
) -> None:
    lying = made.file("lying", b"data") | {"size": said}
    result = restore(made, made.snapshot(made.tree(made.file("good", b"x"), lying)), tmp_path / "target")
    assert [(failure.path, failure.exit_code) for failure in result.failures] == [
        (b"lying", ExitCode.CORRUPT)
    ]
    assert f"said to have {said} bytes, its content has 4" in result.failures[0].message
    assert everything(tmp_path / "target") == {"good"}


def test_a_blob_no_index_knows_is_told_and_the_file_left_out(made: Handmade, tmp_path: Path) -> None:
    missing = made.file("missing", b"data") | {"content": ["ab" * 32]}
    result = restore(made, made.snapshot(made.tree(made.file("good", b"x"), missing)), tmp_path / "target")
    assert [failure.describe() for failure in result.failures] == [
        "missing: data blob abababab of it is in no index"
    ]
    assert everything(tmp_path / "target") == {"good"}


def test_a_missing_tree_costs_its_directory_only(made: Handmade, tmp_path: Path) -> None:
    lost = node("lost", "dir", mode=GO_DIRECTORY | 0o755, subtree="cd" * 32)
    result = restore(made, made.snapshot(made.tree(made.file("good", b"x"), lost)), tmp_path / "target")
    assert [(failure.path, failure.exit_code) for failure in result.failures] == [(b"lost", ExitCode.CORRUPT)]
    assert (tmp_path / "target/good").read_bytes() == b"x"


def _three_files(made: Handmade) -> Snapshot:
    """Two packs: `one` and half of `split` in the first, the other half and `two` in the second."""
    one = made.file("one", os.urandom(5000))
    first = os.urandom(600_000)
    first_id = made.blob(first)
    made.new_pack()
    second = os.urandom(600_000)
    split = made.file("split", second)
    split |= {"content": [first_id, *split["content"]], "size": len(first) + len(second)}
    return made.snapshot(made.tree(one, split, made.file("two", os.urandom(5000))))


@pytest.mark.parametrize("damage", ["deleted", "emptied", "truncated", "flipped"])
def test_a_damaged_pack_costs_the_files_in_it_and_is_named(
    made: Handmade, tmp_path: Path, damage: str
) -> None:
    snapshot = _three_files(made)
    pack = made.data_packs()[1]
    data = pack.read_bytes()
    pack.unlink()
    if damage != "deleted":
        changed = bytearray(data)
        if damage == "flipped":
            changed[1000] ^= 1
        pack.write_bytes({"emptied": b"", "truncated": data[:10_000]}.get(damage, bytes(changed)))
    result = restore(made, snapshot, tmp_path / "target")
    broken = {failure.path for failure in result.failures}
    assert b"split" in broken
    assert b"one" not in broken
    assert all(pack.name in failure.message for failure in result.failures)
    assert all(failure.exit_code is ExitCode.CORRUPT for failure in result.failures)
    # what did not become whole is not there under its name
    assert {os.fsencode(name) for name in everything(tmp_path / "target")} == {
        b"one",
        b"two",
        b"split",
    } - broken


def _forge(made: Handmade, stored: bytes, said: int, identifier: bytes) -> Json:
    """A file of one blob whose pack holds `stored`, sealed, under a listing that claims `said` bytes."""
    sealed = b"".join(made.repository.sealer().seal(stored))
    pack = hash_of(sealed)
    path = made.directory / "data" / pack.hex()[:2] / pack.hex()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(sealed)
    made._packs.append((pack, [PackedBlob(identifier, BlobType.DATA, 0, len(sealed), said)]))
    return node("bomb", "file", mode=0o644, size=said, content=[identifier.hex()], links=1)


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("said", [1000, 2**31])
def test_a_zstd_bomb_does_not_grow_past_its_bound(
    made: Handmade, tmp_path: Path, declared: bool, said: int
) -> None:
    bomb = zstandard.ZstdCompressor(write_content_size=declared).compress(bytes(512 * 2**20))
    snapshot = made.snapshot(made.tree(_forge(made, bomb, said, b"\1" * 32), made.file("good", b"x")))
    before = _peak_kib()
    result = restore(made, snapshot, tmp_path / "target")
    assert [(failure.path, failure.exit_code) for failure in result.failures] == [(b"bomb", ExitCode.CORRUPT)]
    assert everything(tmp_path / "target") == {"good"}
    assert _peak_kib() - before < 200 * 1024


def _peak_kib() -> int:
    import resource

    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def test_content_that_is_not_what_its_id_says_is_not_written(made: Handmade, tmp_path: Path) -> None:
    swapped = _forge(made, b"forged content", 0, hash_of(b"right content!"))
    snapshot = made.snapshot(made.tree(swapped | {"size": 14}, made.file("good", b"x")))
    result = restore(made, snapshot, tmp_path / "target")
    assert "does not hash to its id" in result.failures[0].message
    assert everything(tmp_path / "target") == {"good"}


def test_hard_links_of_a_lying_snapshot_do_not_join_different_files(made: Handmade, tmp_path: Path) -> None:
    same = {"links": 2, "inode": 7, "device_id": 1}
    one, other = made.file("one", b"first"), made.file("other", b"second")
    snapshot = made.snapshot(made.tree(one | same, other | same))
    assert restore(made, snapshot, tmp_path / "target").failures == ()
    assert (tmp_path / "target/one").read_bytes() == b"first"
    assert (tmp_path / "target/other").read_bytes() == b"second"


def test_a_type_nobody_knows_is_told(made: Handmade, tmp_path: Path) -> None:
    snapshot = made.snapshot(made.tree(node("odd", "wormhole", mode=0), made.file("good", b"x")))
    assert [failure.describe() for failure in restore(made, snapshot, tmp_path / "target").failures] == [
        "odd: of the unknown type 'wormhole'"
    ]


def test_an_index_that_claims_a_huge_blob_does_not_make_us_read_it(made: Handmade, tmp_path: Path) -> None:
    file = _forge(made, b"x", 0, b"\2" * 32)
    pack, (blob,) = made._packs.pop()
    made._packs.append((pack, [blob._replace(length=2**32 - 1)]))
    snapshot = made.snapshot(made.tree(file | {"size": 2**32 - 1 - 32}))
    result = restore(made, snapshot, tmp_path / "target")
    assert "is said to have 4294967295 bytes" in result.failures[0].message


def test_a_dead_worker_is_told_and_not_waited_for(
    made: Handmade, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = _three_files(made)
    plan = plan_restore(made.repository, snapshot, Selection(), os.fsencode(tmp_path / "target"))
    parent = os.getpid()

    def die(*_: object) -> bytes:
        assert os.getpid() != parent
        os.kill(os.getpid(), 9)
        return b""

    monkeypatch.setattr(made.repository.storage, "load", die)
    with pytest.raises(DrctlError, match="worker process died"):
        apply_restore(made.repository, plan, os.fsencode(tmp_path / "target"))


def test_a_file_of_one_pack_with_one_damaged_piece_is_not_left_half(made: Handmade, tmp_path: Path) -> None:
    snapshot = made.snapshot(made.tree(made.file("pair", os.urandom(5000), os.urandom(5000))))
    (pack,) = made.data_packs()
    data = bytearray(pack.read_bytes())
    data[7000] ^= 1  # in the second piece
    pack.unlink()
    pack.write_bytes(data)
    result = restore(made, snapshot, tmp_path / "target")
    assert [failure.path for failure in result.failures] == [b"pair"]
    assert everything(tmp_path / "target") == set()
