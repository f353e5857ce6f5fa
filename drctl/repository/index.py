"""Where each blob lies: the union of all index files in one compact table, and their JSON.

Invariant: the table holds 56 bytes a blob or a little more, whatever the repository's size, and
forked workers share it (its buffers hold no Python objects). A blob is its id AND its type: a file
may hold the very bytes of a tree, and restic looks for it among the data blobs. A blob listed twice
keeps its first place; `add_pack` says how many were.
"""

from __future__ import annotations

import re
import struct
from array import array
from collections.abc import Iterable, Iterator
from typing import cast

import orjson

from drctl.errors import CorruptError
from drctl.repository.crypto import OVERHEAD
from drctl.repository.fields import UINT32, mapping, number, sequence
from drctl.repository.ids import ID_LENGTH, parse_id
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
        known = self._count
        given = blobs if isinstance(blobs, list) else list(blobs)
        self._reserve(len(given))
        for blob in given:
            self._add(number, blob)
        return len(given) - (self._count - known)

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

    def _add(self, pack_number: int, blob: PackedBlob) -> None:
        identifier, kind, offset, length, raw_length = blob
        found = self._find(identifier, kind)
        if found >= 0:
            return
        self._slots[-1 - found] = self._count
        pack = pack_number | _TREE_BIT if kind is BlobType.TREE else pack_number
        self._records += _ENTRY.pack(identifier, pack, offset, length, raw_length)
        self._count += 1

    def _reserve(self, more: int) -> None:
        """Room for that many more: at most two thirds of the slots are taken."""
        size = len(self._slots)
        while (self._count + more) * 3 >= size * 2:
            size *= 2
        if size == len(self._slots):
            return
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
            yield parse_id(pack["id"], where), _decode_blobs(sequence(pack["blobs"]), where)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as exc:
        raise CorruptError(f"{where}: malformed index: {str(exc)[:100]}") from exc


_TYPES = {"data": BlobType.DATA, "tree": BlobType.TREE}
_HEX = re.compile(r"[0-9a-f]*")


def _decode_blobs(values: list[object], where: str) -> list[PackedBlob]:
    """A pack's blobs. Checked column by column: an index has millions of rows."""
    rows = [mapping(value) for value in values]
    ids = _ids([row["id"] for row in rows], where)
    kinds = [_TYPES[row["type"]] for row in rows]  # type: ignore[index]
    offsets = _numbers([row["offset"] for row in rows])
    lengths = _numbers([row["length"] for row in rows])
    raw_lengths = _numbers([row.get("uncompressed_length", 0) for row in rows])
    return list(map(PackedBlob, ids, kinds, offsets, lengths, raw_lengths))


def _ids(values: list[object], where: str) -> list[bytes]:
    try:
        texts = cast("list[str]", values)
        together = "".join(texts)
        plain = set(map(len, texts)) <= {2 * ID_LENGTH} and _HEX.fullmatch(together)
    except TypeError:
        plain = None
    if not plain:
        return [parse_id(value, where) for value in values]
    raw = bytes.fromhex(together)
    return [raw[at : at + ID_LENGTH] for at in range(0, len(raw), ID_LENGTH)]


def _numbers(values: list[object]) -> list[int]:
    if set(map(type, values)) <= {int}:
        numbers = cast("list[int]", values)
        if not numbers or (min(numbers) >= 0 and max(numbers) < UINT32):
            return numbers
    return [number(value, UINT32) for value in values]
