"""The cache of directory fingerprints: it spares reading trees, and never hides a change."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drctl.cache import LocalCache
from drctl.clock import SystemClock
from drctl.domain.events import ignore
from drctl.ports import Cache, Entry
from drctl.repository.fingerprints import (
    Fingerprints,
    decode_fingerprints,
    encode_fingerprints,
    fingerprint_of,
)
from drctl.workflows.backup import BackupReport, BackupRequest, run_backup
from tests.compare import differences
from tests.workflow.backups import Place, settle, write_tree


class _Spy:
    """A cache that tells what was found in it."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.hits = 0

    def load(self, name: str) -> bytes | None:
        found = self.files.get(name)
        self.hits += found is not None
        return found

    def save(self, name: str, data: bytes) -> None:
        self.files[name] = data

    def only(self) -> bytes:
        """The one file in it."""
        (data,) = self.files.values()
        return data


def _back_up(place: Place, cache: Cache, *, full: bool = False) -> BackupReport:
    request = BackupRequest("service", "files", "host", full)
    return run_backup(place.open(), place.source(), request, SystemClock(), ignore, lambda: None, cache)


def _forget_trees(place: Place) -> None:
    """Make every tree pack unreadable: whoever still needs a tree of the parent notices."""
    table = place.open().blobs
    for pack in {pack for pack, blob in table if blob.type.word == "tree"}:
        path = place.repository / "data" / pack.hex()[:2] / pack.hex()
        path.chmod(0o600)
        path.write_bytes(bytes(path.stat().st_size))


def test_an_unchanged_directory_is_recognised_without_reading_its_tree(place: Place) -> None:
    write_tree(place.data)
    cache = _Spy()
    _back_up(place, cache)
    _forget_trees(place)
    report = _back_up(place, cache)
    assert report.counts.files_unmodified == 40
    assert cache.hits == 1


def test_without_the_cache_the_same_run_reads_the_files_again(place: Place) -> None:
    # the control of the test above
    write_tree(place.data)
    _back_up(place, _Spy())
    _forget_trees(place)
    report = _back_up(place, _Spy())
    assert report.counts.files_unmodified == 0


@pytest.mark.parametrize("change", ["content", "mode", "new", "gone", "renamed", "swapped"])
def test_no_change_in_a_directory_escapes(place: Place, tmp_path: Path, change: str) -> None:
    write_tree(place.data)
    cache = _Spy()
    _back_up(place, cache)
    directory = place.data / "folder-2/deeper"
    match change:
        case "content":
            stamp = (directory / "1.txt").stat().st_mtime_ns
            content = (directory / "1.txt").read_bytes()
            (directory / "1.txt").write_bytes(content[::-1])
            os.utime(directory / "1.txt", ns=(stamp, stamp))
        case "mode":
            (directory / "1.txt").chmod(0o640)
        case "new":
            (directory / "new").write_bytes(b"new")
        case "gone":
            (directory / "1.txt").unlink()
        case "renamed":
            (directory / "1.txt").rename(directory / "z.txt")
        case "swapped":
            other = place.data / "folder-3/deeper"
            directory.rename(tmp_path / "aside")
            other.rename(directory)
            (tmp_path / "aside").rename(other)
    _back_up(place, cache)
    assert differences(place.data, place.restored(tmp_path / "out"), top=True) == []


def test_a_directory_that_changed_while_the_last_backup_began_is_not_entered(place: Place) -> None:
    write_tree(place.data)
    settle()
    cache = _Spy()
    report = _back_up(place, cache)
    assert report.snapshot.id is not None
    known = decode_fingerprints(cache.only(), report.snapshot.id)
    directory = place.data / "folder-0/deeper"
    with place.source().open_directory(os.fsencode(directory)) as opened:
        fingerprint = fingerprint_of(os.fsencode(directory), list(opened.entries))
    assert known.tree_of(fingerprint) is not None
    (directory / "0.txt").touch()
    late = _Late()
    request = BackupRequest("service", "files", "host", full=False)
    second = run_backup(place.open(), place.source(), request, late, ignore, lambda: None, cache)
    assert second.snapshot.id is not None
    assert decode_fingerprints(cache.only(), second.snapshot.id).tree_of(fingerprint) is None


class _Late(SystemClock):
    """A clock that is behind, so that everything changed after the run began."""

    def now(self) -> datetime:
        return super().now() - timedelta(hours=1)


def test_a_full_backup_ignores_the_cache_and_renews_it(place: Place) -> None:
    write_tree(place.data)
    cache = _Spy()
    _back_up(place, cache)
    before = dict(cache.files)
    report = _back_up(place, cache, full=True)
    assert (cache.hits, report.counts.files_changed) == (0, 40)
    assert cache.files != before


@pytest.mark.parametrize("damage", ["flip", "cut", "other snapshot", "empty", "garbage"])
def test_a_damaged_or_foreign_cache_is_as_good_as_none(damage: str) -> None:
    snapshot, fingerprint, tree = os.urandom(32), os.urandom(32), os.urandom(32)
    data = encode_fingerprints(snapshot, [fingerprint + tree])
    assert decode_fingerprints(data, snapshot).tree_of(fingerprint) == tree
    damaged = {
        "flip": data[:-1] + bytes([data[-1] ^ 1]),
        "cut": data[:-7],
        "other snapshot": encode_fingerprints(os.urandom(32), [fingerprint + tree]),
        "empty": b"",
        "garbage": os.urandom(500),
    }[damage]
    assert decode_fingerprints(damaged, snapshot).tree_of(fingerprint) is None


@given(st.dictionaries(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32)))
def test_the_cache_answers_as_a_dictionary_would(model: dict[bytes, bytes]) -> None:
    data = encode_fingerprints(bytes(32), [key + tree for key, tree in model.items()])
    cache = decode_fingerprints(data, bytes(32))
    assert {key: cache.tree_of(key) for key in model} == model
    assert cache.tree_of(b"\x80" * 32) == model.get(b"\x80" * 32)
    assert Fingerprints().tree_of(bytes(32)) is None


@given(st.integers(0, 10), st.integers(0, 2**63))
def test_every_stamp_counts(field: int, value: int) -> None:
    entry = Entry(b"name", 0o100644, 1, 2, 3, 4, 5, 6, 7, 8, 9)
    other = list(entry)
    other[field] = b"other" if field == 0 else value
    same = tuple(other) == tuple(entry)
    alike = fingerprint_of(b"/p", [entry]) == fingerprint_of(b"/p", [Entry._make(other)])
    assert alike is same
    assert fingerprint_of(b"/p", [entry]) != fingerprint_of(b"/q", [entry])


def test_a_cache_in_a_folder_keeps_what_it_got_and_loses_it_without_harm(tmp_path: Path) -> None:
    cache = LocalCache(str(tmp_path / "cache"))
    assert cache.load("a") is None
    cache.save("a", b"one")
    cache.save("a", b"two")
    assert cache.load("a") == b"two"
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    assert os.listdir(tmp_path / "cache") == ["a"]
    blocked = LocalCache("/proc/nowhere")
    blocked.save("a", b"lost")
    assert blocked.load("a") is None
