"""The index: its JSON survives, and the blob table is what a dictionary would be."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drctl.errors import CorruptError
from drctl.repository.index import BlobTable, decode_index, encode_index
from drctl.repository.pack import BlobType, PackedBlob

# few distinct beginnings, so that many ids fall on one slot
IDS = st.one_of(
    st.binary(min_size=32, max_size=32),
    st.tuples(
        st.sampled_from([bytes(8), b"\xff" * 8, b"\x01" + bytes(7)]), st.binary(min_size=24, max_size=24)
    ).map(b"".join),
)
UINT32 = st.integers(0, 2**32 - 1)
BLOBS = st.builds(PackedBlob, IDS, st.sampled_from(BlobType), UINT32, UINT32, UINT32)
PACKS = st.lists(st.tuples(IDS, st.lists(BLOBS, max_size=8)), max_size=8)


@given(PACKS)
def test_an_index_that_was_written_is_read_back_the_same(packs: list[tuple[bytes, list[PackedBlob]]]) -> None:
    assert list(decode_index(encode_index(packs), "here")) == packs


@given(PACKS)
@settings(max_examples=200)
def test_the_blob_table_equals_a_dictionary(packs: list[tuple[bytes, list[PackedBlob]]]) -> None:
    table, duplicates, counted = BlobTable(), 0, 0
    model: dict[tuple[bytes, BlobType], tuple[bytes, PackedBlob]] = {}
    for pack, blobs in packs:
        for blob in blobs:
            duplicates += (blob.id, blob.type) in model
            model.setdefault((blob.id, blob.type), (pack, blob))
        counted += table.add_pack(pack, blobs)
    assert counted == duplicates
    assert len(table) == len(model)
    assert list(table) == list(model.values())
    assert set(table.packs) == {pack for pack, _ in packs}
    for (identifier, kind), place in model.items():
        assert table.get(identifier, kind) == place
        assert table.has(identifier, kind)
        other = BlobType(1 - kind)
        assert table.has(identifier, other) == ((identifier, other) in model)
        absent = bytes([identifier[0] ^ 1]) + identifier[1:]
        assert table.has(absent, kind) == ((absent, kind) in model)


def test_the_table_finds_everything_after_it_grew_many_times() -> None:
    table = BlobTable()
    blobs = [
        PackedBlob(number.to_bytes(32, "little"), BlobType.DATA, number, 40, 0) for number in range(20_000)
    ]
    table.add_pack(bytes(32), blobs)
    assert all(table.get(blob.id, BlobType.DATA) == (bytes(32), blob) for blob in blobs)
    assert not table.has((20_001).to_bytes(32, "little"), BlobType.DATA)


def test_a_file_that_holds_the_bytes_of_a_tree_is_not_taken_for_it() -> None:
    table = BlobTable()
    table.add_pack(bytes(32), [PackedBlob(b"x" * 32, BlobType.TREE, 0, 50, 0)])
    assert not table.has(b"x" * 32, BlobType.DATA)
    table.add_pack(b"p" * 32, [PackedBlob(b"x" * 32, BlobType.DATA, 7, 60, 0)])
    assert table.get(b"x" * 32, BlobType.DATA) == (b"p" * 32, PackedBlob(b"x" * 32, BlobType.DATA, 7, 60, 0))
    assert table.get(b"x" * 32, BlobType.TREE) == (bytes(32), PackedBlob(b"x" * 32, BlobType.TREE, 0, 50, 0))


ID = "ab" * 32
DEEP = b"[" * 1010 + b"]" * 1010
BLOB = {"id": ID, "type": "data", "offset": 0, "length": 40}


def one_blob(**change: object) -> bytes:
    """An index of one blob that is good but for the change."""
    return orjson.dumps({"packs": [{"id": ID, "blobs": [{**BLOB, **change}]}]})


def test_the_bare_list_of_version_1_is_read() -> None:
    ((pack, blobs),) = decode_index(orjson.dumps([{"id": ID, "blobs": [BLOB]}]), "here")
    assert (pack.hex(), blobs) == (ID, [PackedBlob(bytes.fromhex(ID), BlobType.DATA, 0, 40, 0)])
    assert list(decode_index(b'{"packs":null,"supersedes":[]}', "here")) == []


@pytest.mark.parametrize(
    "json",
    [b"", b"5", b"null5", b"{}", b'{"packs":5}', b'{"packs":{}}', b'{"packs":"abc"}', b'{"packs":[5]}',
     b'{"packs":[{}]}', b'{"packs":[{"id":"ab","blobs":[]}]}', b"[" * 10_000, b"\xff\xfe", b"NaN",
     b'{"packs":[{"id":"%s","blobs":5}]}' % ID.encode(),
     b'{"packs":[{"id":"%s","blobs":[null]}]}' % ID.encode(),
     one_blob(id="zz"), one_blob(id=None), one_blob(id=ID.upper()), one_blob(type="directory"),
     one_blob(type=1),
     one_blob(type=[["data"]]), one_blob(offset=-1), one_blob(offset=2**32), one_blob(offset=0.5),
     one_blob(offset=True), one_blob(length="40"), one_blob(length=None), one_blob(uncompressed_length=2**32),
     one_blob(length=5).replace(b":5", b":1e300"),
     one_blob(length=5).replace(b":5", b":" + DEEP), one_blob(id=5).replace(b":5", b":" + DEEP)],
)  # fmt: skip
def test_a_malformed_index_is_corrupt_and_nothing_else(json: bytes) -> None:
    with pytest.raises(CorruptError, match="index/abcd") as caught:
        list(decode_index(json, "index/abcd"))
    assert len(caught.value.message) < 300
