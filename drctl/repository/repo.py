"""The repository: keys opened, files sealed and loaded, snapshots and blobs found.

Invariant: what is loaded was authenticated and, where its name is its hash, hashed; what is saved
is never replaced. The order of writing is packs, index, snapshot; of deleting, the reverse.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum

from drctl.domain.plan import Compression
from drctl.domain.secret import Secret
from drctl.errors import AbsentError, CorruptError, RefusedError, UsageError
from drctl.ports import Clock, Storage
from drctl.repository import lock
from drctl.repository.codec import MAX_BLOB, MAX_TREE, Codec, unwrap_file, wrap_file
from drctl.repository.crypto import ScryptCost, Sealer, SealingKey
from drctl.repository.ids import hash_of, is_id, short
from drctl.repository.index import BlobTable, decode_index, encode_index
from drctl.repository.keys import store_key, username
from drctl.repository.pack import BlobType, PackedBlob
from drctl.repository.packer import FinishedPack
from drctl.repository.snapshot import Snapshot, decode_snapshot, encode_snapshot

_LOADS_AHEAD = 4


class FileKind(Enum):
    """The folders of a repository; every file in one is named by the hash of its stored bytes."""

    KEY = "keys"
    LOCK = "locks"
    SNAPSHOT = "snapshots"
    INDEX = "index"
    PACK = "data"

    def key(self, identifier: bytes) -> str:
        """The storage key of a file."""
        name = identifier.hex()
        return f"data/{name[:2]}/{name}" if self is FileKind.PACK else f"{self.value}/{name}"


@dataclass(frozen=True, slots=True)
class Config:
    """The repository's `config` file."""

    version: int
    id: str
    chunker_polynomial: int


@dataclass(frozen=True, slots=True)
class StoredId:
    """A file of the repository as the storage lists it."""

    id: bytes
    size: int
    stored_at: datetime


class Repository:
    """An unlocked repository. Threads and forked processes may share it: each thread has its own
    cipher contexts."""

    def __init__(
        self, storage: Storage, key: SealingKey, key_id: bytes, config: Config, compression: Compression
    ) -> None:
        self.storage = storage
        self.key_id = key_id
        self.config = config
        self.compression = compression if config.version >= 2 else Compression.OFF
        self._key = key
        self._local = threading.local()
        self._blobs: BlobTable | None = None

    # --- cipher contexts, one set a thread and process

    def sealer(self) -> Sealer:
        """This thread's cipher contexts."""
        if getattr(self._local, "pid", None) != os.getpid():
            self._local.pid = os.getpid()
            self._local.sealer = Sealer(self._key)
            self._local.codec = Codec(self.compression, compresses_trees=self.config.version >= 2)
        return self._local.sealer  # type: ignore[no-any-return]

    def new_sealer(self) -> Sealer:
        """Cipher contexts for an owner who is not one thread but guards them with a lock."""
        return Sealer(self._key)

    def codec(self) -> Codec:
        """This thread's compressor."""
        self.sealer()
        return self._local.codec  # type: ignore[no-any-return]

    # --- sealed JSON files

    def load_json(self, kind: FileKind, identifier: bytes) -> bytes:
        """A snapshot's, index's or lock's JSON. AbsentError, or CorruptError naming the file."""
        name = kind.key(identifier)
        data = self.storage.load(name)
        if hash_of(data) != identifier:
            raise CorruptError(f"{name}: its bytes do not hash to its name", hint="run: drctl repo check")
        return unwrap_file(self.sealer().open(data, name), name)

    def save_json(self, kind: FileKind, json: bytes) -> bytes:
        """Seal and store; returns the new file's id. What was sealed is opened again first."""
        sealer = self.sealer()
        plain = wrap_file(json, self.config.version)
        data = b"".join(sealer.seal(plain))
        if unwrap_file(sealer.open(data, kind.value), kind.value) != json:
            raise CorruptError(f"a new file for {kind.value} does not open to what was sealed")
        identifier = hash_of(data)
        self.storage.save(kind.key(identifier), [data])
        return identifier

    def remove(self, kind: FileKind, identifier: bytes) -> None:
        """Delete one file; no error when it is already absent."""
        self.storage.delete(kind.key(identifier))

    def files(self, kind: FileKind) -> Iterator[StoredId]:
        """All files of a kind. Names that are not ids are left alone and left out."""
        for stored in self.storage.list(f"{kind.value}/"):
            name = stored.key.rsplit("/", 1)[-1]
            if is_id(name):
                yield StoredId(bytes.fromhex(name), stored.size, stored.modified)

    # --- snapshots

    def snapshots(self) -> list[Snapshot]:
        """All snapshots, oldest recovery point first. One that vanishes meanwhile was forgotten."""
        found = [
            self._decode(stored, json)
            for stored, json in self._load_all(FileKind.SNAPSHOT)
            if json is not None
        ]
        return sorted(found, key=lambda snapshot: (snapshot.time, snapshot.id))

    def _load_all(self, kind: FileKind) -> Iterator[tuple[StoredId, bytes | None]]:
        """Every file of a kind with its JSON (None: it vanished since the listing), a few at a time:
        over a network each costs a round trip."""
        ahead: deque[tuple[StoredId, Future[bytes | None]]] = deque()
        with ThreadPoolExecutor(_LOADS_AHEAD, thread_name_prefix="load") as pool:
            for stored in self.files(kind):
                ahead.append((stored, pool.submit(self._load_if_there, kind, stored.id)))
                if len(ahead) > _LOADS_AHEAD:
                    first, future = ahead.popleft()
                    yield first, future.result()
            while ahead:
                first, future = ahead.popleft()
                yield first, future.result()

    def _load_if_there(self, kind: FileKind, identifier: bytes) -> bytes | None:
        try:
            return self.load_json(kind, identifier)
        except AbsentError:
            return None

    def _snapshot(self, stored: StoredId) -> Snapshot:
        return self._decode(stored, self.load_json(FileKind.SNAPSHOT, stored.id))

    def _decode(self, stored: StoredId, json: bytes) -> Snapshot:
        snapshot = decode_snapshot(json, FileKind.SNAPSHOT.key(stored.id))
        return replace(snapshot, id=stored.id, stored_at=stored.stored_at)

    def find_snapshot(self, prefix: str) -> Snapshot:
        """The one snapshot whose id begins with `prefix`; UsageError for none or several."""
        matches = [
            stored for stored in self.files(FileKind.SNAPSHOT) if stored.id.hex().startswith(prefix.lower())
        ]
        if not matches:
            raise UsageError(f"no snapshot {prefix!r}", hint="drctl backup list shows them")
        if len(matches) > 1:
            raise UsageError(f"{len(matches)} snapshots begin with {prefix!r}", hint="give more digits")
        return self._snapshot(matches[0])

    def save_snapshot(self, snapshot: Snapshot) -> Snapshot:
        """Store a snapshot's record, after all it refers to is stored and indexed."""
        identifier = self.save_json(FileKind.SNAPSHOT, encode_snapshot(snapshot))
        stored = self.storage.stat(FileKind.SNAPSHOT.key(identifier))
        return replace(snapshot, id=identifier, stored_at=stored.modified)

    # --- packs, index, blobs

    def save_pack(self, pack: FinishedPack) -> None:
        """Store a finished pack, durable on return."""
        self.storage.save(FileKind.PACK.key(pack.id), [pack.data])

    def save_index(self, packs: Iterable[tuple[bytes, list[PackedBlob]]]) -> bytes:
        """Store an index file over packs that are stored."""
        return self.save_json(FileKind.INDEX, encode_index(packs))

    def load_index(self) -> BlobTable:
        """The union of all index files, read anew. CorruptError names a bad one."""
        table = BlobTable()
        for stored, json in self._load_all(FileKind.INDEX):
            name = FileKind.INDEX.key(stored.id)
            if json is None:
                raise CorruptError(f"{name}: it vanished while it was read", hint="run the command once more")
            for pack, blobs in decode_index(json, name):
                table.add_pack(pack, blobs)
        self._blobs = table
        return table

    def index_file(self, identifier: bytes) -> Iterator[tuple[bytes, list[PackedBlob]]]:
        """One index file's packs."""
        return decode_index(self.load_json(FileKind.INDEX, identifier), FileKind.INDEX.key(identifier))

    @property
    def blobs(self) -> BlobTable:
        """The index, loaded once."""
        return self._blobs if self._blobs is not None else self.load_index()

    def load_blob(self, identifier: bytes, kind: BlobType) -> bytes:
        """A blob's content. CorruptError names the pack, or says that no index knows the blob."""
        found = self.blobs.get(identifier, kind)
        if found is None:
            raise CorruptError(
                f"{kind.word} blob {short(identifier)} is in no index", hint="run: drctl repo check"
            )
        pack, blob = found
        name = FileKind.PACK.key(pack)
        _refuse_huge(blob, f"{name}: blob {short(identifier)}")
        try:
            sealed = self.storage.load(name, blob.offset, blob.length)
        except AbsentError as exc:
            raise CorruptError(f"{name}: missing, needed for blob {short(identifier)}") from exc
        return self.open_blob(sealed, blob, name)

    def open_blob(self, sealed: bytes | memoryview, blob: PackedBlob, where: str) -> bytes:
        """Authenticate, decompress and hash one blob out of its stored bytes."""
        where = f"{where}: blob {short(blob.id)}"
        if len(sealed) != blob.length:
            raise CorruptError(f"{where}: the pack ends within it")
        _refuse_huge(blob, where)
        plain = self.sealer().open(sealed, where)
        if blob.raw_length:
            plain = self.codec().decompress(plain, blob.raw_length, where)
        if hash_of(plain) != blob.id:
            raise CorruptError(f"{where}: its content does not hash to its id")
        return plain

    def load_tree(self, identifier: bytes) -> bytes:
        """A tree blob's JSON bytes."""
        return self.load_blob(identifier, BlobType.TREE)

    # --- locks

    def take_lock(self, clock: Clock, *, exclusive: bool = False) -> lock.HeldLock:
        """Take a lock; LockedError when a conflicting one is held. `confirm()` it before writing."""
        return lock.HeldLock(self.lock_files(clock), clock, exclusive=exclusive)

    def lock_files(self, clock: Clock) -> lock.LockFiles:
        """The lock files there are, for `repo unlock` and for locking."""

        def read_all() -> list[lock.LockRecord]:
            return lock.read_locks(
                lambda: ((stored.id, stored.stored_at) for stored in self.files(FileKind.LOCK)),
                lambda identifier: self.load_json(FileKind.LOCK, identifier),
            )

        def write(exclusive: bool) -> bytes:
            json = lock.encode_lock(clock.now(), exclusive=exclusive, username=username())
            return self.save_json(FileKind.LOCK, json)

        return lock.LockFiles(read_all, write, lambda identifier: self.remove(FileKind.LOCK, identifier))

    # --- keys

    def add_key(self, password: Secret, clock: Clock, cost: ScryptCost = ScryptCost()) -> bytes:  # noqa: B008 - frozen
        """Store one more key file for the same master key; returns its id."""
        return store_key(self.storage, self._key, password, clock, cost)

    def remove_key(self, identifier: bytes) -> None:
        """Delete a key file; RefusedError for the one this repository was opened with, so that the
        last usable key never goes."""
        if identifier == self.key_id:
            raise RefusedError(
                f"key {short(identifier)} is the one in use",
                hint="open the repository with another key first",
            )
        self.remove(FileKind.KEY, identifier)


def _refuse_huge(blob: PackedBlob, where: str) -> None:
    limit = MAX_TREE if blob.type is BlobType.TREE else MAX_BLOB
    claimed = max(blob.plain_length, blob.length)
    if claimed > limit:
        raise CorruptError(f"{where}: claims {claimed} bytes, over the bound of {limit}")
