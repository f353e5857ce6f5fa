"""Packs: headers survive, and no length in one is believed."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drctl.domain.plan import Compression
from drctl.errors import CorruptError
from drctl.repository.codec import Codec
from drctl.repository.crypto import OVERHEAD, Sealer, SealingKey
from drctl.repository.ids import hash_of
from drctl.repository.pack import (
    BlobType,
    PackedBlob,
    decode_header,
    encode_header,
    header_size,
    open_header,
    seal_header,
    sealed_header_length,
)
from drctl.repository.packer import FinishedPack, Packer

KEY = SealingKey.generate()
UINT32 = st.integers(0, 2**32 - 1)


@st.composite
def headers(draw: st.DrawFn) -> list[PackedBlob]:
    blobs, offset = [], 0
    for _ in range(draw(st.integers(0, 9))):
        length = draw(UINT32)
        identifier = draw(st.binary(min_size=32, max_size=32))
        blobs.append(PackedBlob(identifier, draw(st.sampled_from(BlobType)), offset, length, draw(UINT32)))
        offset += length
    return blobs


@given(headers())
def test_a_header_that_was_written_is_read_back_the_same(blobs: list[PackedBlob]) -> None:
    assert decode_header(encode_header(blobs), "here") == blobs
    assert len(b"".join(seal_header(blobs, Sealer(KEY)))) <= header_size(len(blobs))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_header_or_corrupt(header: bytes) -> None:
    try:
        blobs = decode_header(header, "here")
    except CorruptError:
        return
    assert encode_header(blobs) == header or any(kind in header for kind in b"\x02\x03")


@given(st.lists(st.binary(max_size=3000), max_size=30), st.sampled_from(Compression))
def test_a_filled_pack_opens_to_its_blobs(contents: list[bytes], compression: Compression) -> None:
    sealer, codec = Sealer(KEY), Codec(compression)
    packs: list[FinishedPack] = []
    packer = Packer(BlobType.DATA, sealer, codec, packs.append)
    for content in contents:
        packer.add(hash_of(content), content)
    packer.flush()

    assert len(packs) == bool(contents)
    for pack in packs:
        assert pack.id == hash_of(pack.data)
        blobs = opened(pack)
        assert blobs == pack.blobs
        for blob, content in zip(blobs, contents, strict=True):
            plain = sealer.open(pack.data[blob.offset : blob.offset + blob.length], "here")
            if blob.raw_length:
                plain = codec.decompress(plain, blob.raw_length, "here")
            assert plain == content
            assert blob.plain_length == len(content)


def opened(pack: FinishedPack) -> list[PackedBlob]:
    """The pack's header, read from its end."""
    length = sealed_header_length(pack.data[-4:], len(pack.data), "here")
    body = len(pack.data) - length - 4
    return open_header(pack.data[body:-4], body, Sealer(KEY), "here")


@pytest.mark.parametrize("length", [0, 1, OVERHEAD, 97, 98, 2**24 + 1, 2**31, 2**32 - 1])
def test_a_header_length_that_cannot_be_is_refused_before_anything_is_read(length: int) -> None:
    with pytest.raises(CorruptError, match="data/ab"):
        sealed_header_length(length.to_bytes(4, "little"), 100, "data/ab")


@pytest.mark.parametrize("tail", [b"", b"\0", b"\0\0\0"])
def test_a_pack_shorter_than_its_length_field_is_refused(tail: bytes) -> None:
    with pytest.raises(CorruptError, match="too short"):
        sealed_header_length(tail, len(tail), "data/ab")


def test_a_header_that_lists_more_or_less_than_the_pack_holds_is_refused() -> None:
    sealer = Sealer(KEY)
    *sealed, _ = seal_header([PackedBlob(bytes(32), BlobType.DATA, 0, 100, 0)], sealer)
    assert open_header(b"".join(sealed), 100, sealer, "here")
    for body in (0, 99, 101):
        with pytest.raises(CorruptError, match="lists 100 bytes"):
            open_header(b"".join(sealed), body, sealer, "here")


@given(st.integers(0, 200), st.integers(0, 7))
def test_a_flipped_bit_anywhere_in_a_sealed_message_is_found(position: int, bit: int) -> None:
    sealed = bytearray(b"".join(Sealer(KEY).seal(b"x" * 169)))
    assert len(sealed) == 201
    sealed[position] ^= 1 << bit
    with pytest.raises(CorruptError, match="authentication failed"):
        Sealer(KEY).open(sealed, "here")


@pytest.mark.parametrize("length", range(OVERHEAD))
def test_a_message_shorter_than_an_empty_one_is_corrupt(length: int) -> None:
    with pytest.raises(CorruptError, match=f"only {length} bytes"):
        Sealer(KEY).open(bytes(length), "here")


def test_a_forked_copy_never_uses_its_parents_ivs_again() -> None:
    sealer = Sealer(KEY)
    sealer.seal(b"")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, sealer.seal(b"")[0])
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 16) != sealer.seal(b"")[0]
    os.close(reader)
    os.close(writer)


def test_ivs_do_not_repeat() -> None:
    sealer = Sealer(KEY)
    assert len({sealer.seal(b"")[0] for _ in range(2000)}) == 2000
