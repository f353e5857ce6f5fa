"""Packs: many sealed blobs in one file, with a sealed header at the end.

Format: blob... | sealed(header) | length of the sealed header, 4 bytes little-endian. A header
entry is type(1), stored length(4), [uncompressed length(4) when compressed], id(32).
Invariant: a pack holds blobs of one kind (data or trees) only, and every length read from a
hostile header is bounded by the file it lies in before anything is allocated.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from drctl.errors import CorruptError
from drctl.ports import Buffer
from drctl.repository import crypto
from drctl.repository.crypto import Sealer

PACK_TARGET = 16 * 2**20  # a pack is closed once it holds this much
MAX_HEADER = 16 * 2**20
_PLAIN = struct.Struct("<BI32s")
_PACKED = struct.Struct("<BII32s")
_LENGTH = struct.Struct("<I")


class BlobType(IntEnum):
    """What a blob holds; the value is its uncompressed type byte in a pack header."""

    DATA = 0
    TREE = 1

    @property
    def word(self) -> str:
        """As the index JSON spells it."""
        return self.name.lower()


class PackedBlob(NamedTuple):
    """One blob's place in a pack. `raw_length` is 0 where it is stored uncompressed."""

    id: bytes
    type: BlobType
    offset: int
    length: int  # sealed, as stored
    raw_length: int

    @property
    def plain_length(self) -> int:
        """Bytes of the blob's content."""
        return self.raw_length or self.length - crypto.OVERHEAD


def encode_header(blobs: list[PackedBlob]) -> bytes:
    """The header's plaintext."""
    parts = []
    for blob in blobs:
        if blob.raw_length:
            parts.append(_PACKED.pack(blob.type + 2, blob.length, blob.raw_length, blob.id))
        else:
            parts.append(_PLAIN.pack(blob.type, blob.length, blob.id))
    return b"".join(parts)


def decode_header(header: bytes, where: str) -> list[PackedBlob]:
    """The blobs a header lists, with their offsets; CorruptError naming `where` when malformed."""
    blobs: list[PackedBlob] = []
    position = offset = 0
    while position < len(header):
        kind = header[position]
        layout = _PLAIN if kind in (0, 1) else _PACKED if kind in (2, 3) else None
        if layout is None or position + layout.size > len(header):
            raise CorruptError(f"{where}: header entry {len(blobs)} is malformed (type {kind})")
        if layout is _PLAIN:
            _, length, identifier = layout.unpack_from(header, position)
            raw_length = 0
        else:
            _, length, raw_length, identifier = layout.unpack_from(header, position)
        blobs.append(PackedBlob(identifier, BlobType(kind & 1), offset, length, raw_length))
        offset += length
        position += layout.size
    return blobs


def header_size(blobs: int) -> int:
    """An upper bound of the sealed header with its length field, in bytes."""
    return blobs * _PACKED.size + crypto.OVERHEAD + _LENGTH.size


def seal_header(blobs: list[PackedBlob], sealer: Sealer) -> list[bytes]:
    """What follows the last blob of a pack."""
    sealed = sealer.seal(encode_header(blobs))
    return [*sealed, _LENGTH.pack(sum(map(len, sealed)))]


def sealed_header_length(tail: Buffer, pack_size: int, where: str) -> int:
    """The sealed header's length out of a pack's last four bytes, bounded by the pack's size."""
    if len(tail) < _LENGTH.size:
        raise CorruptError(f"{where}: only {pack_size} bytes, too short for a pack")
    length = int(_LENGTH.unpack(memoryview(tail)[-_LENGTH.size :])[0])
    if not crypto.OVERHEAD < length <= min(MAX_HEADER, pack_size - _LENGTH.size):
        raise CorruptError(f"{where}: claims a header of {length} bytes in a pack of {pack_size}")
    return length


def open_header(sealed: Buffer, body_size: int, sealer: Sealer, where: str) -> list[PackedBlob]:
    """The blobs of a pack whose body (all before the header) has `body_size` bytes."""
    blobs = decode_header(sealer.open(sealed, where), where)
    listed = blobs[-1].offset + blobs[-1].length if blobs else 0
    if listed != body_size:
        raise CorruptError(f"{where}: its header lists {listed} bytes of blobs, it holds {body_size}")
    return blobs
