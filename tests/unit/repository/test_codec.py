"""Compression: what comes out is bounded, whatever a frame says about itself."""

from __future__ import annotations

import resource
import tracemalloc

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from drctl.domain.plan import Compression
from drctl.errors import CorruptError
from drctl.repository.codec import Codec, unwrap_file, wrap_file

LIMIT = 2**20


def unsized(plain: bytes) -> bytes:
    """A frame that does not say how long its content is."""
    return zstandard.ZstdCompressor(write_content_size=False).compress(plain)


def with_declared_size(frame: bytes, size: int) -> bytes:
    """The frame with another content size in its header (8-byte field)."""
    # magic | descriptor: 8-byte size, single segment | size | blocks
    header = frame[:4] + bytes([0b1110_0000]) + size.to_bytes(8, "little")
    return header + frame[zstandard.frame_header_size(frame) :]


@given(st.binary(max_size=5000), st.sampled_from(Compression))
def test_what_was_compressed_comes_back(plain: bytes, compression: Compression) -> None:
    codec = Codec(compression)
    packed = codec.compress(plain)
    assert packed is None or (
        len(packed) < len(plain) and codec.decompress(packed, len(plain), "here") == plain
    )
    tree = codec.compress_tree(plain)
    assert (
        tree is None
        if not plain
        else tree is not None and codec.decompress(tree, len(plain), "here") == plain
    )
    assert Codec(compression, compresses_trees=False).compress_tree(plain) is None
    assert codec.decompress(unsized(plain), len(plain), "here") == plain


@pytest.mark.parametrize("version", [1, 2])
def test_a_wrapped_file_comes_back(version: int) -> None:
    assert unwrap_file(wrap_file(b'{"a":1}', version), "here") == b'{"a":1}'


@pytest.mark.parametrize(
    "plain", [b"", b"\x00", b"\x01{}", b"\x02", b"\x02{}", b"\x03", b" {}", b"\xff" * 40]
)
def test_an_unknown_wrapping_is_corrupt(plain: bytes) -> None:
    with pytest.raises(CorruptError, match="snapshots/ab"):
        unwrap_file(plain, "snapshots/ab")


BOMB = bytes(100 * 2**20)
FRAME = zstandard.ZstdCompressor(level=1).compress(bytes(LIMIT + 1))


@pytest.mark.parametrize(
    "packed",
    [
        zstandard.ZstdCompressor(level=1).compress(BOMB),
        unsized(BOMB),
        with_declared_size(zstandard.ZstdCompressor(level=1).compress(BOMB), 10),
        with_declared_size(FRAME, LIMIT),
        with_declared_size(FRAME, LIMIT + 1),
        with_declared_size(FRAME, 2**40),
        with_declared_size(FRAME, 2**63),
        with_declared_size(FRAME, 2**64 - 3),
        FRAME[: len(FRAME) // 2],
        unsized(bytes(range(256)) * 900)[:-7],
        b"",
        b"\x28\xb5\x2f\xfd",
        b"\x28\xb5\x2f\xfd\xff",
        b"garbage that is no frame at all",
        FRAME[:12] + b"\xff" * 20,
    ],
    ids=["declared bomb", "undeclared bomb", "bomb that claims 10 bytes", "one byte more than declared",
         "declared over the bound", "claims a TiB", "claims 2**63", "claims 2**64-3", "cut",
         "undeclared and cut", "empty", "magic only", "bad descriptor", "no frame", "damaged block"],
)  # fmt: skip
def test_a_bomb_a_lie_and_garbage_are_corrupt_within_bounded_memory(packed: bytes) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    with pytest.raises(CorruptError, match="blob 1234"):
        Codec(Compression.AUTO).decompress(packed, LIMIT, "blob 1234")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * LIMIT
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024


@given(st.binary(max_size=200))
def test_any_bytes_decompress_within_the_bound_or_are_corrupt(packed: bytes) -> None:
    for frame in (packed, b"\x28\xb5\x2f\xfd" + packed):
        try:
            assert len(Codec(Compression.OFF).decompress(frame, 1000, "here")) <= 1000
        except CorruptError:
            continue
