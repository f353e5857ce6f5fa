"""Where each blob lies: the union of all index files in one compact table, and their JSON.

Invariant: the table holds 56 bytes a blob or a little more, whatever the repository's size, and
forked workers share it (its buffers hold no Python objects). A blob is its id AND its type: a file
may hold the very bytes of a tree, and restic looks for it among the data blobs. A blob listed twice
keeps its first place; `add_pack` says how many were.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator

import orjson

from drctl.errors import CorruptError
from drctl.repository.crypto import OVERHEAD
from drctl.repository.fields import UINT32, mapping, number, sequence, text
from drctl.repository.ids import parse_id
from drctl.repository.pack import BlobType, PackedBlob

_LENGTHS = struct.Struct("<II")  # the last two of an entry
_ENTRY = struct.Struct("<32sIIII")  # id, pack number (top bit: tree), offset, length, raw length
_TREE_BIT = 1 << 31
_EMPTY = 0xFFFFFFFF
_FIRST_SLOTS = 1 << 10
BLOBS_PER_INDEX = 50_000


class BlobTable:
    """A hash table of fixed-size records: slots of 4 bytes pointing into records of 48 bytes."""

    def __init__(self) -> None:
        self._records = bytearray()
        self._count = 0
        self._slots = array("I", [_EMPTY]) * _FIRST_SLOTS
        self._packs: list[bytes] = []
        self._pack_numbers: dict[bytes, int] = {}

    def __len__(self) -> int:
        return self._count

    def has(self, identifier: bytes, kind: BlobType) -> bool:
        """Whether a blob of this id and type is known."""
        return self._find(identifier, kind) >= 0

    def position(self, identifier: bytes, kind: BlobType) -> int:
        """A number from 0 to `len(table)` - 1 that stands for the blob; negative when unknown."""
        return self._find(identifier, kind)

    def at(self, position: int) -> tuple[bytes, PackedBlob]:
        """The pack and the blob's place in it, of a `position`."""
        return self._record(position)

    def pack_number_at(self, position: int) -> int:
        """Where in `packs` the blob of a `position` has its pack."""
        start = position * _ENTRY.size + 32
        return int.from_bytes(self._records[start : start + 4], "little") & ~_TREE_BIT

    def id_at(self, position: int) -> bytes:
        """The id of the blob of a `position`."""
        start = position * _ENTRY.size
        return bytes(self._records[start : start + 32])

    def plain_length_at(self, position: int) -> int:
        """Bytes of content of the blob of a `position`."""
        length, raw_length = _LENGTHS.unpack_from(self._records, position * _ENTRY.size + 40)
        return int(raw_length or length - OVERHEAD)

    def pack_number(self, pack: bytes) -> int | None:
        """Where in `packs` a pack stands; None when it was not added."""
        return self._pack_numbers.get(pack)

    @property
    def packs(self) -> list[bytes]:
        """Ids of all packs that were added."""
        return self._packs

    def add_pack(self, pack: bytes, blobs: Iterable[PackedBlob]) -> int:
        """Record a pack's blobs; returns how many of them were in the table already."""
        number = self._pack_numbers.get(pack)
        if number is None:
            number = self._pack_numbers[pack] = len(self._packs)
            self._packs.append(pack)
        duplicates = 0
        for blob in blobs:
            duplicates += not self._add(number, blob)
        return duplicates

    def get(self, identifier: bytes, kind: BlobType) -> tuple[bytes, PackedBlob] | None:
        """The pack and the blob's place in it; None when unknown."""
        at = self._find(identifier, kind)
        return self._record(at) if at >= 0 else None

    def __iter__(self) -> Iterator[tuple[bytes, PackedBlob]]:
        return map(self._record, range(self._count))

    def _record(self, at: int) -> tuple[bytes, PackedBlob]:
        identifier, pack, offset, length, raw_length = _ENTRY.unpack_from(self._records, at * _ENTRY.size)
        kind = BlobType.TREE if pack & _TREE_BIT else BlobType.DATA
        blob = PackedBlob(identifier, kind, offset, length, raw_length)
        return self._packs[pack & ~_TREE_BIT], blob

    def _find(self, identifier: bytes, kind: BlobType) -> int:
        slots, records = self._slots, self._records
        mask = len(slots) - 1
        slot = int.from_bytes(identifier[:8], "little") & mask
        while (at := slots[slot]) != _EMPTY:
            start = at * 48
            # the type is the top bit of the little-endian pack number
            if records[start : start + 32] == identifier and records[start + 35] >> 7 == kind:
                return at
            slot = (slot + 1) & mask
        return -1 - slot

    def _add(self, pack_number: int, blob: PackedBlob) -> bool:
        if self._count * 3 >= len(self._slots) * 2:
            self._grow()
        found = self._find(blob.id, blob.type)
        if found >= 0:
            return False
        self._slots[-1 - found] = self._count
        pack = pack_number | (_TREE_BIT if blob.type is BlobType.TREE else 0)
        self._records += _ENTRY.pack(blob.id, pack, blob.offset, blob.length, blob.raw_length)
        self._count += 1
        return True

    def _grow(self) -> None:
        size = len(self._slots) * 2
        slots = self._slots = array("I", [_EMPTY]) * size
        mask, records = size - 1, self._records
        for at in range(self._count):
            slot = int.from_bytes(records[at * 48 : at * 48 + 8], "little") & mask
            while slots[slot] != _EMPTY:
                slot = (slot + 1) & mask
            slots[slot] = at


def encode_index(packs: Iterable[tuple[bytes, list[PackedBlob]]]) -> bytes:
    """An index file's JSON."""
    return join_index(index_fragment(pack, blobs) for pack, blobs in packs)


def index_fragment(pack: bytes, blobs: list[PackedBlob]) -> bytes:
    """One pack's part of an index file's JSON."""
    return orjson.dumps({"id": pack.hex(), "blobs": [_encode_blob(blob) for blob in blobs]})


def join_index(fragments: Iterable[bytes]) -> bytes:
    """An index file's JSON out of its packs' fragments."""
    return b'{"packs":[' + b",".join(fragments) + b"]}"


def _encode_blob(blob: PackedBlob) -> dict[str, object]:
    fields: dict[str, object] = {
        "id": blob.id.hex(),
        "type": blob.type.word,
        "offset": blob.offset,
        "length": blob.length,
    }
    if blob.raw_length:
        fields["uncompressed_length"] = blob.raw_length
    return fields


def decode_index(json: bytes, where: str) -> Iterator[tuple[bytes, list[PackedBlob]]]:
    """Packs with their blobs; CorruptError naming `where`. Version 1's bare list is read too."""
    try:
        raw = orjson.loads(json)
        for item in sequence(raw if isinstance(raw, list) else mapping(raw)["packs"]):
            pack = mapping(item)
            blobs = sequence(pack["blobs"])
            yield parse_id(pack["id"], where), [_decode_blob(mapping(blob), where) for blob in blobs]
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as exc:
        raise CorruptError(f"{where}: malformed index: {exc}") from exc


_TYPES = {"data": BlobType.DATA, "tree": BlobType.TREE}


def _decode_blob(raw: dict[str, object], where: str) -> PackedBlob:
    return PackedBlob(
        parse_id(raw["id"], where),
        _TYPES[text(raw["type"])],
        number(raw["offset"], UINT32),
        number(raw["length"], UINT32),
        number(raw.get("uncompressed_length", 0), UINT32),
    )
