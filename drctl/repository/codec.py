"""Compression of blobs and files, with bounded output.

Format: blobs of version 2 are zstd frames; unpacked files (snapshot, index, lock) begin with `[`
or `{` (plain JSON) or with 0x02, after which a zstd frame follows.
Invariant: nothing that is decompressed can grow past its bound, whatever its header claims:
python-zstandard ignores max_output_size where a frame declares its own size, so it is read first.
"""

from __future__ import annotations

import zstandard

from drctl.domain.plan import Compression
from drctl.errors import CorruptError
from drctl.ports import Buffer

LEVELS = {Compression.AUTO: 3, Compression.MAX: 12}
_SMALL = 32 * 2**10  # below this, level 1 gives the same size as level 3 in two thirds of the time
MAX_BLOB = 32 * 2**20  # restic's biggest chunk is 8 MiB; a tree of a huge directory can be larger
MAX_TREE = 2**30
MAX_UNPACKED = 2**30
_ZSTD_FILE = 0x02
_SAMPLE = 64 * 2**10  # bytes of a big chunk that are tried before all of it is compressed
_WORTH_A_SAMPLE = 256 * 2**10


class Codec:
    """One compressor and one decompressor. Not thread-safe: one per thread."""

    def __init__(self, compression: Compression, *, compresses_trees: bool = True) -> None:
        self._compresses_trees = compresses_trees
        self._compressor = None
        self._quick = zstandard.ZstdCompressor(level=1)
        if compression is not Compression.OFF:
            self._compressor = zstandard.ZstdCompressor(level=LEVELS[compression])
        self._small = 0 if compression is Compression.MAX else _SMALL
        self._decompressor = zstandard.ZstdDecompressor()

    def compress(self, plain: Buffer) -> bytes | None:
        """The zstd frame, or None where storing it plain is no larger."""
        if self._compressor is None or not self._worthwhile(plain):
            return None
        packed = (self._quick if len(plain) < self._small else self._compressor).compress(plain)
        return packed if len(packed) < len(plain) else None

    def compress_tree(self, plain: Buffer) -> bytes | None:
        """The zstd frame, larger or not and even with compression off: `restic prune` packs anew
        every pack of version 2 that holds a plain tree. None in version 1."""
        return self._quick.compress(plain) if self._compresses_trees and plain else None

    def decompress(self, packed: Buffer, limit: int, where: str) -> bytes:
        """At most `limit` bytes; CorruptError naming `where` for a bomb, a lie or garbage."""
        try:
            declared = zstandard.get_frame_parameters(packed).content_size
            if declared == zstandard.CONTENTSIZE_UNKNOWN:
                return self._decompress_unsized(packed, limit, where)
            if declared > limit:
                raise CorruptError(
                    f"{where}: claims to decompress to {declared} bytes, over the bound of {limit}"
                )
            return self._decompressor.decompress(packed)
        except zstandard.ZstdError as exc:
            raise CorruptError(f"{where}: not a zstd frame: {exc}") from exc

    def _decompress_unsized(self, packed: Buffer, limit: int, where: str) -> bytes:
        stream = self._decompressor.stream_reader(packed)
        plain = stream.read(limit + 1)
        if len(plain) > limit:
            raise CorruptError(f"{where}: decompresses to more than {limit} bytes")
        # a stream that is cut short just ends; now that its size is known, see whether it was whole
        whole = self._decompressor.decompressobj()
        whole.decompress(packed)
        if not whole.eof:
            raise CorruptError(f"{where}: the zstd frame is cut short")
        return plain

    def _worthwhile(self, plain: Buffer) -> bool:
        if len(plain) < _WORTH_A_SAMPLE:
            return True
        # already compressed or random data: a sample out of the middle tells, at a fraction of the cost
        middle = len(plain) // 2
        sample = memoryview(plain)[middle : middle + _SAMPLE]
        return len(self._quick.compress(sample)) < 0.97 * len(sample)


def wrap_file(json: bytes, version: int) -> bytes:
    """An unpacked file's plaintext as it is sealed: zstd in version 2, plain JSON in version 1."""
    if version < 2:
        return json
    return bytes([_ZSTD_FILE]) + zstandard.ZstdCompressor(level=3).compress(json)


def unwrap_file(plain: bytes, where: str) -> bytes:
    """The JSON of an unpacked file; CorruptError for an unknown first byte."""
    if plain[:1] in (b"{", b"["):
        return plain
    if plain[:1] == bytes([_ZSTD_FILE]):
        return Codec(Compression.OFF).decompress(memoryview(plain)[1:], MAX_UNPACKED, where)
    raise CorruptError(f"{where}: unknown encoding byte {plain[:1].hex() or 'none'}")
