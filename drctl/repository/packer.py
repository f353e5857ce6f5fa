"""Filling packs: blobs are compressed, sealed, verified, and handed on a pack at a time.

Invariant: a blob enters a pack only after its stored form was opened again and found to be the
blob (memory and library faults would otherwise be sealed for ever: restic #4677).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from drctl.errors import CorruptError
from drctl.ports import Buffer
from drctl.repository.codec import Codec
from drctl.repository.crypto import OVERHEAD, Sealer
from drctl.repository.ids import hash_of, short
from drctl.repository.pack import PACK_TARGET, BlobType, PackedBlob, seal_header


@dataclass(frozen=True)
class FinishedPack:
    """A pack ready to be stored."""

    data: bytearray
    blobs: list[PackedBlob]

    @cached_property
    def id(self) -> bytes:
        """Its name; computed where it is first asked for, which is the uploading thread."""
        return hash_of(self.data)


class Packer:
    """Fills one pack after the other with blobs of one type. Not thread-safe."""

    def __init__(
        self, kind: BlobType, sealer: Sealer, codec: Codec, deliver: Callable[[FinishedPack], None]
    ) -> None:
        self._kind = kind
        self._sealer = sealer
        self._codec = codec
        self._deliver = deliver
        self._data = bytearray()
        self._blobs: list[PackedBlob] = []

    def add(self, identifier: bytes, plain: Buffer) -> int:
        """Store a blob; returns the bytes it takes in the pack."""
        return self.add_sealed(
            identifier, *seal_blob(identifier, plain, self._sealer, self._codec, self._kind)
        )

    def add_sealed(self, identifier: bytes, sealed: tuple[bytes, bytes, bytes], raw_length: int) -> int:
        """Store a blob that `seal_blob` prepared (perhaps in another thread)."""
        length = OVERHEAD + len(sealed[1])
        self._blobs.append(PackedBlob(identifier, self._kind, len(self._data), length, raw_length))
        for part in sealed:
            self._data += part
        if len(self._data) >= PACK_TARGET:
            self.flush()
        return length

    def flush(self) -> None:
        """Hand the current pack on, if anything is in it."""
        if not self._blobs:
            return
        data, blobs = self._data, self._blobs
        self._data, self._blobs = bytearray(), []
        for part in seal_header(blobs, self._sealer):
            data += part
        self._deliver(FinishedPack(data, blobs))


def seal_blob(
    identifier: bytes, plain: Buffer, sealer: Sealer, codec: Codec, kind: BlobType = BlobType.DATA
) -> tuple[tuple[bytes, bytes, bytes], int]:
    """A blob's stored form (IV, ciphertext, tag) and its raw length (0 where not compressed),
    proven to open to `identifier`; CorruptError when this machine's memory or libraries fail."""
    packed = codec.compress_tree(plain) if kind is BlobType.TREE else codec.compress(plain)
    sealed = sealer.seal(plain if packed is None else packed)
    _prove(identifier, sealed, packed, len(plain), sealer, codec)
    return sealed, 0 if packed is None else len(plain)


def _prove(
    identifier: bytes,
    sealed: tuple[bytes, bytes, bytes],
    packed: bytes | None,
    raw_length: int,
    sealer: Sealer,
    codec: Codec,
) -> None:
    where = f"blob {short(identifier)} just sealed"
    opened = sealer.open_parts(*sealed, where)
    plain = opened if packed is None else codec.decompress(opened, raw_length, where)
    if hash_of(plain) != identifier:
        raise CorruptError(
            f"{where}: does not open to what was read",
            hint="the source file is fine; this machine's memory or processor is not: run a memory test",
        )
