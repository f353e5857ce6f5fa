"""Check over golden and deliberately damaged repositories: every damage is found and named."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from drctl.errors import CorruptError, ExitCode, UnreachableError
from drctl.ports import StoredFile
from drctl.repository.check import CheckReport, check_repository
from drctl.repository.codec import wrap_file
from drctl.repository.finding import Severity
from drctl.repository.ids import hash_of
from drctl.repository.index import encode_index
from drctl.repository.pack import BlobType, PackedBlob
from drctl.repository.packer import FinishedPack, Packer, seal_blob
from drctl.repository.repo import FileKind, Repository
from drctl.repository.sample import Everything
from drctl.storage.local import LocalOptions, LocalStorage
from tests.format.goldens import (
    NAMES,
    NEWEST,
    files,
    flip,
    open_golden,
    picture,
    store_as_named,
    unpack,
    writable,
)
from tests.handmade import Handmade, node


@pytest.mark.parametrize("name", NAMES)
def test_repositories_of_every_restic_are_clean(name: str, tmp_path: Path) -> None:
    report = check_repository(open_golden(name, unpack(name, tmp_path)), Everything())
    assert report.findings == ()
    assert (report.snapshots, report.exit_code) == (2, ExitCode.OK)
    assert report.packs_read == report.packs > 0
    assert report.bytes_read > 0


# --- damage: given a repository and its opened form, does something and returns the name to be told


def _first(directory: Path, kind: FileKind) -> Path:
    return files(directory, kind)[0]


def _key(directory: Path, path: Path) -> str:
    return str(path.relative_to(directory))


def _flipped(kind: FileKind, offset: int) -> Callable[[Path, Repository], str]:
    def do(directory: Path, _: Repository) -> str:
        flip(_first(directory, kind), offset)
        return _key(directory, _first(directory, kind))

    return do


def _truncated(kind: FileKind, size: int) -> Callable[[Path, Repository], str]:
    def do(directory: Path, _: Repository) -> str:
        path = writable(_first(directory, kind))
        path.write_bytes(path.read_bytes()[:size])
        return _key(directory, path)

    return do


def _garbage_behind_pack(directory: Path, _: Repository) -> str:
    path = writable(_first(directory, FileKind.PACK))
    path.write_bytes(path.read_bytes() + b"garbage")
    return _key(directory, path)


def _pack_removed(directory: Path, _: Repository) -> str:
    path = _first(directory, FileKind.PACK)
    path.unlink()
    return _key(directory, path)


def _pack_under_another_name(directory: Path, repository: Repository) -> str:
    """A valid pack, stored as if it were another one."""
    first, second = files(directory, FileKind.PACK)[:2]
    writable(first).write_bytes(second.read_bytes())
    return _key(directory, first)


def _index_removed(directory: Path, _: Repository) -> str:
    _first(directory, FileKind.INDEX).unlink()
    return "is in no index"


def _renamed_index(directory: Path, _: Repository) -> str:
    path = _first(directory, FileKind.INDEX)
    path.rename(path.with_name("0" * 64))
    return f"index/{'0' * 64}"


def _index_with(
    change: Callable[[bytes, list[PackedBlob]], list[PackedBlob]], told: str = ""
) -> Callable[[Path, Repository], str]:
    """One pack's listing is changed and properly sealed again: a hostile writer with the key."""

    def do(directory: Path, repository: Repository) -> str:
        path = _first(directory, FileKind.INDEX)
        packs = list(repository.index_file(bytes.fromhex(path.name)))
        packs.sort(key=lambda listed: len(listed[1]), reverse=True)
        pack, blobs = packs[0]
        assert len(blobs) > 1
        blobs.sort(key=lambda blob: blob.offset)
        packs[0] = (pack, change(pack, blobs))
        path.unlink()
        repository.save_index(packs)
        return told or FileKind.PACK.key(pack)

    return do


def _absurd_length(_pack: bytes, blobs: list[PackedBlob]) -> list[PackedBlob]:
    return [*blobs[:-1], blobs[-1]._replace(length=2**32 - 1)]


def _absurd_raw_length(_pack: bytes, blobs: list[PackedBlob]) -> list[PackedBlob]:
    return [*blobs[:-1], blobs[-1]._replace(raw_length=2**32 - 1)]


def _overlap(_pack: bytes, blobs: list[PackedBlob]) -> list[PackedBlob]:
    return [blob._replace(offset=max(blob.offset - 1, 0)) for blob in blobs]


def _blob_left_out(_pack: bytes, blobs: list[PackedBlob]) -> list[PackedBlob]:
    return blobs[1:]


def _shorter_than_empty(_pack: bytes, blobs: list[PackedBlob]) -> list[PackedBlob]:
    return [blobs[0]._replace(length=3), *blobs[1:]]


def _negative_number_in_index(directory: Path, repository: Repository) -> str:
    path = _first(directory, FileKind.INDEX)
    raw = orjson.loads(repository.load_json(FileKind.INDEX, bytes.fromhex(path.name)))
    raw["packs"][0]["blobs"][0]["offset"] = -1
    path.unlink()
    return FileKind.INDEX.key(repository.save_json(FileKind.INDEX, orjson.dumps(raw)))


def _index_that_disagrees(directory: Path, repository: Repository) -> str:
    path = _first(directory, FileKind.INDEX)
    pack, blobs = next(iter(repository.index_file(bytes.fromhex(path.name))))
    repository.save_index([(pack, blobs[:-1])])
    return f"pack {FileKind.PACK.key(pack)}"


def _zstd_bomb_as_index(directory: Path, repository: Repository) -> str:
    """A sealed index whose frame claims 2**40 bytes: 4-byte magic, single segment, 8-byte size."""
    frame = struct.pack("<IBQ", 0xFD2FB528, 0xE0, 2**40) + b"\x01\x00\x00"
    data = b"".join(repository.sealer().seal(b"\x02" + frame))
    return _key(directory, store_as_named(directory, FileKind.INDEX, data))


def _snapshot_of_no_tree(directory: Path, repository: Repository) -> str:
    snapshot = repository.snapshots()[0]
    json = orjson.loads(repository.load_json(FileKind.SNAPSHOT, snapshot.id or b""))
    json["tree"] = "ab" * 32
    return FileKind.SNAPSHOT.key(repository.save_json(FileKind.SNAPSHOT, orjson.dumps(json)))


def _snapshot_that_is_not_json(directory: Path, repository: Repository) -> str:
    data = b"".join(repository.sealer().seal(wrap_file(b"{not json", 2)))
    return _key(directory, store_as_named(directory, FileKind.SNAPSHOT, data))


def _damaged_lock(directory: Path, _: Repository) -> str:
    return _key(directory, store_as_named(directory, FileKind.LOCK, b"torn"))


def _blob_that_is_another(directory: Path, repository: Repository) -> str:
    """Whoever has the key can seal any content under any id: pack and index agree, and both lie."""
    lying: list[FinishedPack] = []
    packer = Packer(BlobType.DATA, repository.sealer(), repository.codec(), lying.append)
    for content in (b"one content", b"another" * 1000):
        parts, raw_length = seal_blob(hash_of(content), content, repository.sealer(), repository.codec())
        packer.add_sealed(hash_of(content + b"!"), parts, raw_length)
    packer.flush()
    repository.save_pack(lying[0])
    repository.save_index([(lying[0].id, lying[0].blobs)])
    return f"{FileKind.PACK.key(lying[0].id)}: blob {hash_of(b'one content!').hex()[:8]}"


def _ids_swapped(_pack: bytes, blobs: list[PackedBlob]) -> list[PackedBlob]:
    first, second = blobs[:2]
    return [first._replace(id=second.id), second._replace(id=first.id), *blobs[2:]]


def _index_that_swaps_ids(directory: Path, repository: Repository) -> str:
    return _index_with(_ids_swapped)(directory, repository) + ": its header"


def _pack_with_absurd_header(directory: Path, _: Repository) -> str:
    path = writable(_first(directory, FileKind.PACK))
    path.write_bytes(path.read_bytes()[:-4] + struct.pack("<I", 2**32 - 1))
    return _key(directory, path)


STRUCTURAL: dict[str, Callable[[Path, Repository], str]] = {
    "snapshot flipped": _flipped(FileKind.SNAPSHOT, 40),
    "snapshot truncated": _truncated(FileKind.SNAPSHOT, 20),
    "snapshot emptied": _truncated(FileKind.SNAPSHOT, 0),
    "snapshot of a tree that is nowhere": _snapshot_of_no_tree,
    "snapshot that is no JSON": _snapshot_that_is_not_json,
    "index flipped": _flipped(FileKind.INDEX, 40),
    "index truncated": _truncated(FileKind.INDEX, 100),
    "index emptied": _truncated(FileKind.INDEX, 0),
    "index removed": _index_removed,
    "index renamed": _renamed_index,
    "index with an absurd length": _index_with(_absurd_length),
    "index with an absurd uncompressed length": _index_with(_absurd_raw_length, "more than any can have"),
    "index with overlapping blobs": _index_with(_overlap, "overlaps the one before it"),
    "index that leaves a blob out": _index_with(_blob_left_out, "no blob is listed from 0"),
    "index with a blob shorter than an empty one": _index_with(
        _shorter_than_empty, "less than an empty blob"
    ),
    "index with a negative number": _negative_number_in_index,
    "index that disagrees with another": _index_that_disagrees,
    "index that is a zstd bomb": _zstd_bomb_as_index,
    "key flipped": _flipped(FileKind.KEY, 40),
    "key truncated": _truncated(FileKind.KEY, 100),
    "lock damaged": _damaged_lock,
    "pack truncated": _truncated(FileKind.PACK, 100),
    "pack emptied": _truncated(FileKind.PACK, 0),
    "pack removed": _pack_removed,
    "pack with garbage behind it": _garbage_behind_pack,
    "pack under another's name": _pack_under_another_name,
}
IN_THE_DATA: dict[str, Callable[[Path, Repository], str]] = {
    "pack flipped in its first blob": _flipped(FileKind.PACK, 20),
    "pack flipped in its header": _flipped(FileKind.PACK, -20),
    "pack with an absurd header length": _pack_with_absurd_header,
    "blob that is not what its id says": _blob_that_is_another,
    "index that swaps two blobs' ids": _index_that_swaps_ids,
}


def _check(name: str, directory: Path, sample: Everything | None = None) -> CheckReport:
    before = picture(directory)
    report = check_repository(open_golden(name, directory), sample)
    assert picture(directory) == before
    return report


def _assert_named(report: CheckReport, named: str) -> None:
    assert report.exit_code is ExitCode.CORRUPT
    errors = [finding.line for finding in report.findings if finding.severity is Severity.ERROR]
    assert any(named in line for line in errors), errors
    assert all("\n" not in line for line in errors)


@pytest.mark.parametrize("damage", STRUCTURAL)
def test_structural_damage_is_found_and_named(damage: str, tmp_path: Path) -> None:
    directory = unpack(NEWEST, tmp_path)
    repository = open_golden(NEWEST, directory)
    # the key that opens it must stay whole: damage goes to another one
    _add_unused_key(directory)
    named = STRUCTURAL[damage](directory, repository)
    _assert_named(_check(NEWEST, directory), named)


def _add_unused_key(directory: Path) -> None:
    """A key file that sorts first, so that damage to `the first key` leaves the good one."""
    good = _first(directory, FileKind.KEY).read_bytes()
    for blank in range(1000):
        data = good + b" " * blank
        if hashlib.sha256(data).hexdigest() < _first(directory, FileKind.KEY).name:
            store_as_named(directory, FileKind.KEY, data)
            return
    raise AssertionError("no such hash in 1000 tries")


@pytest.mark.parametrize("damage", IN_THE_DATA)
@pytest.mark.parametrize("name", ["restic-0.14-v1", NEWEST])
def test_damage_inside_packs_is_found_by_reading_them(name: str, damage: str, tmp_path: Path) -> None:
    directory = unpack(name, tmp_path)
    named = IN_THE_DATA[damage](directory, open_golden(name, directory))
    _assert_named(_check(name, directory, Everything()), named)


def test_a_flip_anywhere_in_any_pack_is_found(tmp_path: Path) -> None:
    directory = unpack(NEWEST, tmp_path)
    for path in files(directory, FileKind.PACK):
        whole = path.read_bytes()
        for offset in range(0, len(whole), max(len(whole) // 5, 1)):
            flip(path, offset)
            _assert_named(_check(NEWEST, directory, Everything()), _key(directory, path))
            path.write_bytes(whole)


def test_every_damage_is_reported_not_only_the_first(tmp_path: Path) -> None:
    directory = unpack(NEWEST, tmp_path)
    packs = files(directory, FileKind.PACK)
    for path in packs:
        flip(path, 10)
    flip(_first(directory, FileKind.SNAPSHOT), 10)
    lines = [finding.line for finding in _check(NEWEST, directory, Everything()).findings]
    for path in [*packs, _first(directory, FileKind.SNAPSHOT)]:
        assert any(_key(directory, path) in line for line in lines)


def test_a_damaged_config_is_named_before_anything_else_is_read(tmp_path: Path) -> None:
    directory = unpack(NEWEST, tmp_path)
    flip(directory / "config", 50)
    from drctl.repository.opening import open_repository
    from tests.format.goldens import PASSWORD

    with pytest.raises(CorruptError, match=r"^config: "):
        open_repository(LocalStorage(LocalOptions(str(directory))), PASSWORD)


def test_a_subtree_that_is_nowhere_is_told_with_the_name_of_its_directory(tmp_path: Path) -> None:
    handmade = Handmade(tmp_path / "repo")
    folder = node("lost", "dir", subtree="cd" * 32)
    handmade.snapshot(handmade.tree(folder, handmade.file("f", b"content")))
    _assert_named(check_repository(handmade.repository), "'lost': its tree cdcdcdcd is in no index")


def test_a_directory_without_a_tree_is_told(tmp_path: Path) -> None:
    handmade = Handmade(tmp_path / "repo")
    handmade.snapshot(handmade.tree(node("hollow", "dir")))
    _assert_named(check_repository(handmade.repository), "'hollow': a directory without a tree")


# --- notes: nothing is lost


def test_an_unreferenced_pack_is_a_note(tmp_path: Path) -> None:
    directory = unpack(NEWEST, tmp_path)
    stray = store_as_named(directory, FileKind.PACK, b"left by a killed backup")
    report = _check(NEWEST, directory, Everything())
    assert [(f.severity, f.file) for f in report.findings] == [(Severity.NOTE, _key(directory, stray))]
    assert report.exit_code is ExitCode.OK


def test_foreign_files_are_noted_and_left_alone(tmp_path: Path) -> None:
    directory = unpack(NEWEST, tmp_path)
    (directory / "data" / "readme.txt").write_text("hello")
    (directory / "snapshots" / "abc").write_text("hello")
    report = _check(NEWEST, directory)
    assert {f.file for f in report.findings} == {"data/readme.txt", "snapshots/abc"}
    assert report.exit_code is ExitCode.OK


def test_an_index_stored_twice_is_a_note(tmp_path: Path) -> None:
    directory = unpack(NEWEST, tmp_path)
    repository = open_golden(NEWEST, directory)
    for stored in list(repository.files(FileKind.INDEX)):
        repository.save_index(list(repository.index_file(stored.id)))
    report = _check(NEWEST, directory, Everything())
    assert report.findings
    assert all("another index file" in finding.what for finding in report.findings)
    assert report.exit_code is ExitCode.OK


def test_an_unused_blob_that_is_missing_harms_nobody(tmp_path: Path) -> None:
    directory = unpack(NEWEST, tmp_path)
    repository = open_golden(NEWEST, directory)
    report_before = _check(NEWEST, directory)
    # what only the second snapshot needs may go with it
    newest = repository.snapshots()[-1]
    repository.remove(FileKind.SNAPSHOT, newest.id or b"")
    report = _check(NEWEST, directory)
    assert report.exit_code is ExitCode.OK
    assert report.snapshots == report_before.snapshots - 1


# --- a storage that does not answer


class _Unreachable(LocalStorage):
    """Answers until told otherwise."""

    silent_about = "nothing/"

    def list(self, prefix: str):  # type: ignore[no-untyped-def]
        return self._fail_midway(prefix, super().list(prefix))

    def _fail_midway(self, prefix: str, files: object):  # type: ignore[no-untyped-def]
        for number, stored in enumerate(files):  # type: ignore[arg-type, var-annotated]
            assert isinstance(stored, StoredFile)
            if prefix == self.silent_about and number == 1:
                raise UnreachableError(f"{self.location}: no answer in 1 s")
            yield stored

    def load(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        if key.startswith(self.silent_about):
            raise UnreachableError(f"{self.location}: no answer in 1 s")
        return super().load(key, offset, length)


@pytest.mark.parametrize("silent_about", ["snapshots/", "index/", "", "data/"])
def test_a_storage_that_stops_answering_is_unreachable_never_clean(silent_about: str, tmp_path: Path) -> None:
    directory = unpack(NEWEST, tmp_path)
    repository = open_golden(NEWEST, directory)
    storage = _Unreachable(LocalOptions(str(directory)))
    storage.silent_about = silent_about or "locks/"
    if silent_about == "":

        class _ListFails(_Unreachable):
            silent_about = ""

            def load(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
                return LocalStorage.load(self, key, offset, length)

        storage = _ListFails(LocalOptions(str(directory)))
    repository.storage = storage
    with pytest.raises(UnreachableError) as caught:
        check_repository(repository, Everything())
    assert caught.value.exit_code is ExitCode.UNREACHABLE


def test_a_hostile_pack_of_a_gigabyte_is_read_in_bounded_memory(tmp_path: Path) -> None:
    """A sparse file of 1 GiB whose header claims one blob of almost all of it."""
    directory = unpack(NEWEST, tmp_path)
    repository = open_golden(NEWEST, directory)
    from drctl.repository.pack import seal_header

    size = 2**30
    blobs = [PackedBlob(b"\1" * 32, BlobType.DATA, 0, size, 0)]
    tail = b"".join(seal_header(blobs, repository.sealer()))
    pack = b"\2" * 32
    path = directory / FileKind.PACK.key(pack)
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(size)
        file.write(tail)
    repository.save_json(FileKind.INDEX, encode_index([(pack, blobs)]))
    report = check_repository(repository, Everything())
    _assert_named(report, "larger than any can be")
    _assert_named(report, "do not hash to its name")
    assert _peak_kib_of_workers(directory) < 400 * 1024


def _peak_kib_of_workers(directory: Path) -> int:
    """Of a check in a process of its own: what this one's children ever held says nothing of it."""
    script = (
        "import resource; from pathlib import Path; from tests.format.goldens import NEWEST, open_golden;"
        "from tests.format.test_check import check_repository, Everything;"
        f"check_repository(open_golden(NEWEST, Path({str(directory)!r})), Everything());"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, check=True)
    return int(done.stdout)
