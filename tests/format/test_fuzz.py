"""Whatever the bytes, a decoder gives a value or an error a user may see; never anything else."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drctl.domain.plan import Compression
from drctl.errors import DrctlError
from drctl.repository.codec import Codec, unwrap_file
from drctl.repository.crypto import Sealer, SealingKey
from drctl.repository.ids import hash_of
from drctl.repository.index import BlobTable, decode_index
from drctl.repository.keys import decode_key_file
from drctl.repository.lock import decode_lock
from drctl.repository.opening import open_repository
from drctl.repository.pack import BlobType, decode_header, encode_header, open_header, sealed_header_length
from drctl.repository.repo import FileKind, Repository
from drctl.repository.snapshot import decode_snapshot
from drctl.repository.tree import decode_tree, parse_time_ns, unquote_name
from drctl.storage.local import LocalOptions, LocalStorage
from tests.format import goldens

NOW = datetime(2026, 11, 22, tzinfo=UTC)
KEY = SealingKey.generate()
Decoder = Callable[[bytes], object]


def index(data: bytes) -> object:
    """An index into a table, as it is loaded."""
    table = BlobTable()
    for pack, blobs in decode_index(data, "here"):
        table.add_pack(pack, blobs)
    return list(table)


def text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def snapshot(data: bytes) -> object:
    """A snapshot and all that is read out of its tags."""
    found = decode_snapshot(data, "here")
    return found.holds, found.received, found.service, found.mode, found.is_complete


DECODERS: dict[str, Decoder] = {
    "tree": lambda data: decode_tree(data, "here"),
    "index": index,
    "snapshot": snapshot,
    "lock": lambda data: decode_lock(data, bytes(32), NOW, "here").describe(),
    "key file": lambda data: decode_key_file(data, "here"),
    "pack header": lambda data: decode_header(data, "here"),
    "sealed header": lambda data: open_header(data, 5, Sealer(KEY), "here"),
    "header length": lambda data: sealed_header_length(data[-4:], len(data), "here"),
    "sealed": lambda data: Sealer(KEY).open(data, "here"),
    "wrapped file": lambda data: unwrap_file(data, "here"),
    "blob": lambda data: Codec(Compression.OFF).decompress(data, 10_000, "here"),
    "master key": lambda data: SealingKey.from_json(text(data), "here"),
    "name": lambda data: unquote_name(text(data), "here"),
    "time": lambda data: parse_time_ns(text(data)),
}


def survives(decode: Decoder, data: bytes) -> None:
    """It gives a value, or an error with a short message."""
    try:
        decode(data)
    except DrctlError as error:
        assert len(error.message) < 1000


SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=9)
    | st.sampled_from(["ab" * 32, "2026-01-01T00:00:00Z", "AAAA", "data", "tree", "file", "scrypt",
    r"\x", "drctl.hold=a"])
)  # fmt: skip
KEYS = st.sampled_from(
    ["nodes", "name", "type", "mtime", "mode", "content", "subtree", "packs", "blobs", "id", "offset",
    "length", "time",
     "tree", "paths", "tags", "summary", "backup_start", "exclusive", "pid", "kdf", "N", "r", "p",
     "salt", "data", "mac",
     "extended_attributes", "linktarget_raw", "uncompressed_length", "hostname", "encrypt", "parent",
     "uid"],
)  # fmt: skip
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=8),
    max_leaves=25,
)


@pytest.mark.parametrize("name", DECODERS)
@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=400))
def test_any_bytes_are_a_value_or_an_error_a_user_may_see(name: str, data: bytes) -> None:
    survives(DECODERS[name], data)


@pytest.mark.parametrize("name", ["tree", "index", "snapshot", "lock", "key file", "wrapped file"])
@settings(max_examples=300, deadline=None)
@given(value=JSON)
def test_any_json_is_a_value_or_an_error_a_user_may_see(name: str, value: object) -> None:
    import json

    survives(DECODERS[name], json.dumps(value).encode())


# --- real files, damaged --------------------------------------------------------------------


@pytest.fixture(scope="module", params=["restic-0.14-v1", "restic-0.19-v2"])
def golden(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    path = goldens.unpack(request.param, tmp_path_factory.mktemp("golden"))
    return open_repository(LocalStorage(LocalOptions(str(path))), goldens.PASSWORD)


def plaintexts(repository: Repository) -> dict[str, list[bytes]]:
    """What the decoders read, out of a real repository."""
    trees, headers = [], []
    by_pack: dict[bytes, list[object]] = {}
    for pack, blob in repository.load_index():
        by_pack.setdefault(pack, []).append(blob)
        if blob.type is BlobType.TREE:
            trees.append(repository.load_tree(blob.id))
    for blobs in by_pack.values():
        headers.append(encode_header(sorted(blobs, key=lambda blob: blob.offset)))  # type: ignore[arg-type]
    return {
        "tree": trees,
        "pack header": headers,
        "index": [repository.load_json(FileKind.INDEX, file.id) for file in repository.files(FileKind.INDEX)],
        "snapshot": [
            repository.load_json(FileKind.SNAPSHOT, file.id) for file in repository.files(FileKind.SNAPSHOT)
        ],
        "key file": [
            repository.storage.load(FileKind.KEY.key(file.id)) for file in repository.files(FileKind.KEY)
        ],
    }


SNIPPETS = (b"", b"\0", b"null", b"-1", b"1e400", b"99999999999999999999", b"NaN", b'"', b"{", b"}",
            b"[" * 1010, b"\xff",
            b"\\", b'\\u0000', b'\\ud800', b"[[[]]]", b"true", b",", b":", b"..", b"/",
            b"\\\\x00")  # fmt: skip


def mutated(data: bytes, chance: random.Random) -> bytes:
    """One to four changes: a flipped bit, a cut, a doubling, a snippet in the place of something."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(changed) + 1)
        end = min(len(changed), at + chance.choice((0, 1, 2, 8, 40)))
        match chance.randrange(4):
            case 0 if at < len(changed):
                changed[at] ^= 1 << chance.randrange(8)
            case 1:
                del changed[at:end]
            case 2:
                changed[at:at] = changed[at:end]
            case _:
                changed[at:end] = chance.choice(SNIPPETS)
    return bytes(changed)


def test_mutated_files_of_stock_restic_are_a_value_or_an_error_a_user_may_see(golden: Repository) -> None:
    chance = random.Random(20261122)
    for name, originals in plaintexts(golden).items():
        assert originals, name
        for original in originals:
            DECODERS[name](original)
            for _ in range(3000 // len(originals)):
                survives(DECODERS[name], mutated(original, chance))


def test_damaged_sealed_files_are_named_and_nothing_else(golden: Repository) -> None:
    chance = random.Random(7)
    for kind in (FileKind.SNAPSHOT, FileKind.INDEX):
        for file in golden.files(kind):
            data = golden.storage.load(kind.key(file.id))
            for _ in range(200):
                damaged = mutated(data, chance)
                with pytest.raises(DrctlError, match="here"):
                    unwrap_file(golden.sealer().open(damaged, "here"), "here")
                    assert damaged == data
                    raise DrctlError("here: the changes cancelled each other")


def _read_all(repository: Repository, _: bytes) -> None:
    repository.load_index()
    repository.snapshots()


def test_a_writer_with_the_key_can_still_do_no_more_than_be_refused(
    golden: Repository, tmp_path: Path
) -> None:
    """Authenticated garbage: the seal is right, the content is not."""
    chance = random.Random(9)
    for name, originals in plaintexts(golden).items():
        if name in ("key file", "pack header"):
            continue
        kind = FileKind.INDEX if name == "index" else FileKind.SNAPSHOT
        for _ in range(100):
            content = mutated(chance.choice(originals), chance)
            if content[:1] not in (b"{", b"["):
                continue
            sealed = b"".join(golden.sealer().seal(content))
            storage = LocalStorage(LocalOptions(str(tmp_path)))
            storage.save(kind.key(hash_of(sealed)), [sealed])
            repository = Repository(storage, golden._key, bytes(32), golden.config, Compression.OFF)
            survives(partial(_read_all, repository), b"")
            storage.delete(kind.key(hash_of(sealed)))
