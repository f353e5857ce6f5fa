"""Opening, loading and saving: what is not what it must be is named, and nothing is replaced."""

from __future__ import annotations

import os
import threading

import orjson
import pytest

from drctl.domain.plan import Compression
from drctl.domain.secret import Secret
from drctl.errors import (
    AbsentError,
    AlreadyExistsError,
    CorruptError,
    NoRepositoryError,
    RefusedError,
    StorageError,
    UnreachableError,
    UsageError,
    WrongKeyError,
)
from drctl.repository.crypto import OVERHEAD, ScryptCost, Sealer, SealingKey
from drctl.repository.ids import hash_of
from drctl.repository.opening import create_repository, open_repository
from drctl.repository.pack import BlobType, PackedBlob
from drctl.repository.packer import FinishedPack, Packer
from drctl.repository.repo import FileKind, Repository
from drctl.repository.snapshot import Snapshot
from drctl.testing.fake_clock import FakeClock
from drctl.testing.memory_storage import MemoryStorage

CHEAP = ScryptCost(16, 1, 1)
KEY = Secret("canary-key")
CLOCK = FakeClock()


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
def repository(storage: MemoryStorage) -> Repository:
    return create_repository(storage, KEY, CLOCK, cost=CHEAP)


def store(repository: Repository, *contents: bytes, kind: BlobType = BlobType.DATA) -> list[FinishedPack]:
    """Store blobs in a pack and index them."""
    packs: list[FinishedPack] = []
    packer = Packer(kind, repository.sealer(), repository.codec(), packs.append)
    for content in contents:
        packer.add(hash_of(content), content)
    packer.flush()
    for pack in packs:
        repository.save_pack(pack)
    repository.save_index([(pack.id, pack.blobs) for pack in packs])
    repository.load_index()
    return packs


# --- creating and opening -------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2])
def test_a_new_repository_opens_with_its_key(storage: MemoryStorage, version: int) -> None:
    made = create_repository(storage, KEY, CLOCK, cost=CHEAP, version=version)
    opened = open_repository(storage, KEY)
    assert opened.config == made.config
    assert opened.config.version == version
    assert opened.compression is (Compression.AUTO if version == 2 else Compression.OFF)


def test_a_place_without_a_config_is_no_repository(storage: MemoryStorage) -> None:
    with pytest.raises(NoRepositoryError):
        open_repository(storage, KEY)
    storage.save("keys/" + "ab" * 32, [b"left behind by an init that was killed"])
    with pytest.raises(NoRepositoryError):
        open_repository(storage, KEY)


@pytest.mark.parametrize("operation", ["load", "list"])
@pytest.mark.parametrize("error", [UnreachableError("no answer"), StorageError("denied")])
def test_a_storage_that_does_not_answer_is_never_no_repository_or_a_wrong_key(
    repository: Repository, storage: MemoryStorage, operation: str, error: StorageError
) -> None:
    for times in (1, 99):
        storage.fail(operation, error, times=times)
        with pytest.raises(type(error)):
            open_repository(storage, KEY)


def test_a_wrong_key_is_said_to_be_one_and_not_shown(repository: Repository, storage: MemoryStorage) -> None:
    with pytest.raises(WrongKeyError) as caught:
        open_repository(storage, Secret("canary wrong"))
    assert "canary" not in f"{caught.value} {caught.value!r} {caught.value.hint}"


def test_a_repository_without_any_key_file_is_corrupt(repository: Repository, storage: MemoryStorage) -> None:
    repository.remove(FileKind.KEY, repository.key_id)
    with pytest.raises(CorruptError, match="no key file"):
        open_repository(storage, KEY)


def test_every_key_opens_the_repository_and_the_one_in_use_stays(
    repository: Repository, storage: MemoryStorage
) -> None:
    second = repository.add_key(Secret("second"), CLOCK, CHEAP)
    with pytest.raises(RefusedError):
        repository.remove_key(repository.key_id)
    opened = open_repository(storage, Secret("second"))
    opened.remove_key(repository.key_id)
    assert open_repository(storage, Secret("second")).key_id == second
    with pytest.raises(WrongKeyError):
        open_repository(storage, KEY)


@pytest.mark.parametrize("garbage", [b"", b"{}", b"x" * 100, b"x" * 200_000])
def test_a_planted_or_damaged_key_file_does_not_keep_a_good_one_from_opening(
    repository: Repository, storage: MemoryStorage, garbage: bytes
) -> None:
    for name in (hash_of(garbage).hex(), "00" * 32, "ff" * 32):
        storage.put_raw(f"keys/{name}", garbage)
    storage.put_raw("keys/readme.txt", b"not a key")
    assert open_repository(storage, KEY).config == repository.config
    with pytest.raises(CorruptError, match="keys/"):
        open_repository(storage, Secret("other"))


def test_a_key_that_is_removed_while_it_is_looked_for_is_passed_over(
    repository: Repository, storage: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = repository.add_key(Secret("second"), CLOCK, CHEAP)
    load = storage.load

    def vanish(key: str, offset: int = 0, length: int | None = None) -> bytes:
        if gone.hex() in key:
            raise AbsentError(f"memory: no {key}")
        return load(key, offset, length)

    monkeypatch.setattr(storage, "load", vanish)
    assert open_repository(storage, KEY).config == repository.config
    with pytest.raises(WrongKeyError):
        open_repository(storage, Secret("second"))


def test_a_repository_is_made_only_where_none_is(repository: Repository, storage: MemoryStorage) -> None:
    with pytest.raises(RefusedError):
        create_repository(storage, KEY, CLOCK, cost=CHEAP)
    assert open_repository(storage, KEY).config == repository.config


def test_an_empty_key_makes_no_repository(storage: MemoryStorage) -> None:
    with pytest.raises(UsageError):
        create_repository(storage, Secret(""), CLOCK, cost=CHEAP)
    assert storage.calls == []


def test_an_init_that_could_not_finish_may_be_run_again(storage: MemoryStorage) -> None:
    storage.fail("save", UnreachableError("no answer"), containing="config")
    with pytest.raises(UnreachableError):
        create_repository(storage, KEY, CLOCK, cost=CHEAP)
    made = create_repository(storage, KEY, CLOCK, cost=CHEAP)
    assert open_repository(storage, KEY).config == made.config
    assert len(list(made.files(FileKind.KEY))) == 1


CONFIG = {"version": 2, "id": "ab" * 32, "chunker_polynomial": "3da3358b4dc173"}


@pytest.mark.parametrize(
    "json",
    [b"", b"[]", b"5", b"\xff", b"[" * 2000,
     *(orjson.dumps({**CONFIG, "version": value}) for value in (None, "2", 1e30, -1, [2], True)),
     *(orjson.dumps({**CONFIG, "id": value}) for value in (None, 5, "ab", [["x"]])),
     *(orjson.dumps({**CONFIG, "chunker_polynomial": value}) for value in (None, 5, "xyz", "", ["1"]))],
)  # fmt: skip
def test_a_malformed_config_is_corrupt(repository: Repository, storage: MemoryStorage, json: bytes) -> None:
    storage.put_raw("config", b"".join(repository.sealer().seal(json)))
    with pytest.raises(CorruptError, match="config"):
        open_repository(storage, KEY)


@pytest.mark.parametrize("version", [0, 3, 99])
def test_a_repository_of_a_version_that_is_not_known_is_refused(
    repository: Repository, storage: MemoryStorage, version: int
) -> None:
    json = orjson.dumps({**CONFIG, "version": version})
    storage.put_raw("config", b"".join(repository.sealer().seal(json)))
    with pytest.raises(RefusedError, match=f"version {version}"):
        open_repository(storage, KEY)


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 100, b"x" * 10**6])
def test_a_damaged_config_is_named(repository: Repository, storage: MemoryStorage, content: bytes) -> None:
    storage.put_raw("config", content)
    with pytest.raises(CorruptError, match="config"):
        open_repository(storage, KEY)


# --- sealed JSON files ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", [FileKind.SNAPSHOT, FileKind.INDEX, FileKind.LOCK])
def test_a_damaged_file_is_named_wherever_the_damage_is(
    repository: Repository, storage: MemoryStorage, kind: FileKind
) -> None:
    identifier = repository.save_json(kind, b'{"a":1}')
    name = kind.key(identifier)
    good = storage.load(name)
    for position in range(0, len(good), 7):
        damaged = bytearray(good)
        damaged[position] ^= 0x10
        storage.put_raw(name, bytes(damaged))
        with pytest.raises(CorruptError, match=name):
            repository.load_json(kind, identifier)
    for length in (0, 1, 16, OVERHEAD, len(good) - 1):
        storage.put_raw(name, good[:length])
        with pytest.raises(CorruptError, match=name):
            repository.load_json(kind, identifier)


def test_a_file_under_the_name_of_another_is_corrupt(repository: Repository, storage: MemoryStorage) -> None:
    first = repository.save_json(FileKind.SNAPSHOT, b'{"a":1}')
    second = repository.save_json(FileKind.SNAPSHOT, b'{"a":2}')
    storage.put_raw(FileKind.SNAPSHOT.key(first), storage.load(FileKind.SNAPSHOT.key(second)))
    with pytest.raises(CorruptError, match=first.hex()):
        repository.load_json(FileKind.SNAPSHOT, first)


def test_a_well_named_file_of_another_key_is_corrupt(repository: Repository, storage: MemoryStorage) -> None:
    foreign = b"".join(Sealer(SealingKey.generate()).seal(b'{"a":1}'))
    storage.put_raw(FileKind.SNAPSHOT.key(hash_of(foreign)), foreign)
    with pytest.raises(CorruptError, match="authentication"):
        repository.load_json(FileKind.SNAPSHOT, hash_of(foreign))


def test_nothing_is_replaced(repository: Repository, storage: MemoryStorage) -> None:
    identifier = repository.save_json(FileKind.SNAPSHOT, b"{}")
    with pytest.raises(AlreadyExistsError):
        storage.save(FileKind.SNAPSHOT.key(identifier), [b"other"])


def test_names_that_are_no_ids_are_left_alone(repository: Repository, storage: MemoryStorage) -> None:
    for name in ("readme.txt", "ab" * 31, "ab" * 32 + "00", "tmp-123"):
        storage.put_raw(f"snapshots/{name}", b"")
    assert list(repository.files(FileKind.SNAPSHOT)) == []
    assert repository.snapshots() == []


def test_a_snapshot_that_vanishes_while_they_are_listed_was_forgotten(
    repository: Repository, storage: MemoryStorage
) -> None:
    kept = repository.save_snapshot(Snapshot(CLOCK.now(), b"t" * 32, ("/a",)))
    gone = repository.save_snapshot(Snapshot(CLOCK.now(), b"u" * 32, ("/a",)))
    assert gone.id is not None
    storage.fail("load", AbsentError("no such file"), containing=gone.id.hex())
    assert repository.snapshots() == [kept]


@pytest.mark.parametrize("error", [UnreachableError("no answer"), StorageError("denied")])
def test_a_listing_that_fails_is_never_an_empty_one(
    repository: Repository, storage: MemoryStorage, error: StorageError
) -> None:
    repository.save_snapshot(Snapshot(CLOCK.now(), b"t" * 32, ("/a",)))
    repository.save_snapshot(Snapshot(CLOCK.now(), b"u" * 32, ("/a",)))
    for applied in (False, True):
        storage.fail("list", error, applied=applied)
        with pytest.raises(type(error)):
            repository.snapshots()


def test_a_snapshot_is_found_by_the_beginning_of_its_id_and_only_when_that_is_clear(
    repository: Repository,
) -> None:
    made = [repository.save_snapshot(Snapshot(CLOCK.now(), bytes([n]) * 32, ("/a",))) for n in range(20)]
    name = made[0].id.hex() if made[0].id else ""
    assert repository.find_snapshot(name.upper()[:12]) == made[0]
    with pytest.raises(UsageError, match="20 snapshots begin"):
        repository.find_snapshot("")
    with pytest.raises(UsageError, match="no snapshot"):
        repository.find_snapshot("zz")


# --- blobs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"x", b"ab" * 50_000, os.urandom(70_000)])
@pytest.mark.parametrize("kind", list(BlobType))
def test_a_stored_blob_is_loaded_again(repository: Repository, content: bytes, kind: BlobType) -> None:
    store(repository, b"before", content, b"after", kind=kind)
    assert repository.load_blob(hash_of(content), kind) == content


def test_the_bytes_of_a_tree_are_not_found_as_a_file(repository: Repository) -> None:
    empty_tree = b'{"nodes":[]}\n'
    store(repository, empty_tree, kind=BlobType.TREE)
    with pytest.raises(CorruptError, match="in no index"):
        repository.load_blob(hash_of(empty_tree), BlobType.DATA)
    store(repository, empty_tree, kind=BlobType.DATA)
    assert repository.load_blob(hash_of(empty_tree), BlobType.DATA) == empty_tree
    assert repository.load_tree(hash_of(empty_tree)) == empty_tree


def test_every_tree_of_version_2_is_compressed_as_restic_wants_it(storage: MemoryStorage) -> None:
    for compression in Compression:
        made = create_repository(MemoryStorage(), KEY, CLOCK, cost=CHEAP, compression=compression)
        ((blob, *_),) = (pack.blobs for pack in store(made, b'{"nodes":[]}\n', kind=BlobType.TREE))
        assert blob.raw_length == 13
    old = create_repository(storage, KEY, CLOCK, cost=CHEAP, version=1)
    ((blob, *_),) = (pack.blobs for pack in store(old, b'{"nodes":[]}\n' * 99, kind=BlobType.TREE))
    assert blob.raw_length == 0


def test_damage_of_a_blob_is_found_and_its_pack_named(repository: Repository, storage: MemoryStorage) -> None:
    (pack,) = store(repository, b"content" * 100)
    name = FileKind.PACK.key(pack.id)
    for position in range(pack.blobs[0].length):
        damaged = bytearray(pack.data)
        damaged[position] ^= 1
        storage.put_raw(name, bytes(damaged))
        with pytest.raises(CorruptError, match=name):
            repository.load_blob(pack.blobs[0].id, BlobType.DATA)
    storage.put_raw(name, bytes(pack.data[:40]))
    with pytest.raises(CorruptError, match="ends within"):
        repository.load_blob(pack.blobs[0].id, BlobType.DATA)
    storage.delete(name)
    with pytest.raises(CorruptError, match=f"{name}: missing"):
        repository.load_blob(pack.blobs[0].id, BlobType.DATA)


def test_a_storage_that_does_not_answer_is_no_damage(repository: Repository, storage: MemoryStorage) -> None:
    (pack,) = store(repository, b"content")
    storage.fail("load", UnreachableError("no answer"))
    with pytest.raises(UnreachableError):
        repository.load_blob(pack.blobs[0].id, BlobType.DATA)


def test_a_blob_in_the_place_of_another_is_corrupt(repository: Repository) -> None:
    (pack,) = store(repository, b"one", b"two")
    first, second = pack.blobs
    swapped = PackedBlob(first.id, first.type, second.offset, second.length, second.raw_length)
    repository.blobs._records.clear()
    repository.blobs.__init__()  # type: ignore[misc]
    repository.blobs.add_pack(pack.id, [swapped])
    with pytest.raises(CorruptError, match="does not hash"):
        repository.load_blob(first.id, BlobType.DATA)


@pytest.mark.parametrize(
    ("length", "raw_length"), [(2**32 - 1, 0), (2**31, 10), (100, 2**32 - 1), (100, 32 * 2**20 + 1)]
)
def test_a_blob_that_claims_to_be_huge_is_refused_before_it_is_loaded(
    repository: Repository, storage: MemoryStorage, length: int, raw_length: int
) -> None:
    blob = PackedBlob(b"x" * 32, BlobType.DATA, 0, length, raw_length)
    repository.save_index([(b"p" * 32, [blob])])
    repository.load_index()
    storage.calls.clear()
    with pytest.raises(CorruptError, match="over the bound"):
        repository.load_blob(blob.id, BlobType.DATA)
    assert storage.calls == []


@pytest.mark.parametrize("lie", [1, 99, 701])
def test_a_raw_length_that_lies_is_corrupt(repository: Repository, lie: int) -> None:
    (pack,) = store(repository, b"content" * 100)
    blob = pack.blobs[0]
    assert blob.raw_length == 700
    lying = blob._replace(raw_length=lie)
    sealed = bytes(pack.data[blob.offset : blob.offset + blob.length])
    if lie < 700:
        with pytest.raises(CorruptError):
            repository.open_blob(sealed, lying, "data/ab")
    else:
        assert repository.open_blob(sealed, lying, "data/ab") == b"content" * 100


def test_threads_share_a_repository_and_never_a_cipher(repository: Repository) -> None:
    contents = [os.urandom(5000) for _ in range(40)]
    store(repository, *contents)
    wrong: list[bytes] = []
    sealers: set[int] = set()

    def read() -> None:
        sealers.add(id(repository.sealer()))
        for content in contents * 5:
            if repository.load_blob(hash_of(content), BlobType.DATA) != content:
                wrong.append(content)

    kept = repository.sealer()
    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert id(kept) not in sealers
