"""Cutting: the chunks of a stream, joined, are the stream, however it comes in."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drctl.repository.chunker import MAX_CHUNK, MIN_CHUNK, Cutter, FastCdcCutter, split

CONTENT = random.Random(1).randbytes(20 * 2**20)
CUTTERS = {
    "fastcdc": FastCdcCutter,
}


@pytest.fixture(params=list(CUTTERS.values()), ids=list(CUTTERS))
def cutter(request: pytest.FixtureRequest) -> Cutter:
    """Each cutter."""
    made: Cutter = request.param()
    return made


def parts(content: bytes, sizes: list[int]) -> list[bytes]:
    """The content in parts of these sizes, the last one taking the rest."""
    result, done = [], 0
    for size in sizes:
        result.append(content[done : done + size])
        done += size
    return [*result, content[done:]]


LENGTHS = st.sampled_from(
    [0, 1, MIN_CHUNK - 1, MIN_CHUNK, MIN_CHUNK + 1, MAX_CHUNK - 1, MAX_CHUNK, MAX_CHUNK + 1, 20 * 2**20]
) | st.integers(0, 20 * 2**20)
SIZES = st.lists(st.integers(0, 5 * 2**20), max_size=6)


@pytest.mark.parametrize("name", CUTTERS)
@settings(max_examples=25, deadline=None)
@given(length=LENGTHS, sizes=SIZES)
def test_chunks_join_to_the_input_and_do_not_depend_on_the_parts(
    name: str, length: int, sizes: list[int]
) -> None:
    content = CONTENT[:length]
    chunks = list(split(CUTTERS[name](), iter(parts(content, sizes))))
    assert b"".join(chunks) == content
    assert all(chunks)
    assert chunks == list(split(CUTTERS[name](), iter([content])))


@pytest.mark.parametrize(
    "content", [bytes(20 * 2**20), b"ab" * 2**22, CONTENT], ids=["zeros", "period", "random"]
)
def test_content_chunks_keep_their_bounds(content: bytes) -> None:
    chunks = list(split(FastCdcCutter(), iter([content])))
    assert all(MIN_CHUNK <= len(chunk) <= MAX_CHUNK for chunk in chunks[:-1])
    assert 0 < len(chunks[-1]) <= MAX_CHUNK


@pytest.mark.parametrize("length", [1, MIN_CHUNK - 1, MIN_CHUNK])
def test_a_file_of_up_to_512_kib_is_one_chunk_as_in_restic(length: int) -> None:
    assert list(split(FastCdcCutter(), iter([CONTENT[:length]]))) == [CONTENT[:length]]


def test_an_empty_stream_has_no_chunks(cutter: Cutter) -> None:
    assert list(split(cutter, iter([]))) == []
    assert list(split(cutter, iter([b"", b""]))) == []


def test_an_insertion_changes_only_chunks_near_it() -> None:
    before = set(split(FastCdcCutter(), iter([CONTENT])))
    after = list(split(FastCdcCutter(), iter([CONTENT[:5_000_000] + b"inserted" + CONTENT[5_000_000:]])))
    assert len([chunk for chunk in after if chunk not in before]) <= 3
    assert len(after) > 6
