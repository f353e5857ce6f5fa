"""restic's cutter: its bounds, its polynomial, and what happens without the extra."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drctl.errors import CorruptError, UsageError
from drctl.repository import rabin
from drctl.repository.chunker import MAX_CHUNK, MIN_CHUNK, split
from drctl.repository.ids import hash_of
from drctl.repository.polynomial import is_irreducible, random_irreducible
from drctl.repository.rabin import RabinCutter

POLYNOMIAL = 0x3DA3358B4DC173
CONTENT = random.Random(3).randbytes(20 * 2**20)


def slow_ends(content: bytes) -> list[int]:
    """The definition, one polynomial division per position: where the first chunk may end."""
    ends = []
    for end in range(MIN_CHUNK, len(content) + 1):
        value = int.from_bytes(content[end - 64 : end], "big")
        while value.bit_length() > 53:
            value ^= POLYNOMIAL << value.bit_length() - 54
        if value & (2**20 - 1) == 0:
            ends.append(end)
            break
    return ends


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 20 * 2**20), st.lists(st.integers(0, 5 * 2**20), max_size=6))
def test_chunks_join_to_the_input_and_do_not_depend_on_the_parts(length: int, sizes: list[int]) -> None:
    cutter = RabinCutter(POLYNOMIAL)
    content = CONTENT[:length]
    whole = list(split(cutter, iter([content])))
    assert b"".join(whole) == content
    assert all(MIN_CHUNK <= len(chunk) <= MAX_CHUNK for chunk in whole[:-1])
    parts, done = [], 0
    for size in sizes:
        parts.append(content[done : done + size])
        done += size
    assert list(split(cutter, iter([*parts, content[done:]]))) == whole


def test_a_chunk_ends_where_the_remainder_of_the_last_64_bytes_has_20_clear_bits() -> None:
    (first, *_) = split(RabinCutter(POLYNOMIAL), iter([CONTENT]))
    near = CONTENT[len(first) - MIN_CHUNK - 3000 : len(first)]
    assert slow_ends(near) == [len(near)]


def test_the_compiled_scan_does_what_the_plain_one_does() -> None:
    import numpy

    out, mod = rabin._tables(POLYNOMIAL)
    content = CONTENT[: 2 * 2**20]
    lengths = [0] * 8
    count = rabin._scan(content, out.tolist(), mod.tolist(), lengths)
    compiled = numpy.empty(8, numpy.int64)
    data = numpy.frombuffer(memoryview(content).toreadonly(), numpy.uint8)
    assert rabin._compiled()(data, out, mod, compiled) == count
    assert compiled[:count].tolist() == lengths[:count]


@pytest.mark.parametrize(
    "polynomial", [0, 1, 2**53, 2**53 | 1, 2**54 - 1, 0x3DA3358B4DC173 << 1, 2**300 + 1, 0b111]
)
def test_a_polynomial_that_is_not_irreducible_of_degree_53_is_corrupt(polynomial: int) -> None:
    with pytest.raises(CorruptError, match="polynomial"):
        RabinCutter(polynomial)


def test_new_polynomials_are_irreducible_of_degree_53() -> None:
    for _ in range(3):
        polynomial = random_irreducible()
        assert polynomial.bit_length() == 54
        assert is_irreducible(polynomial)
        RabinCutter(polynomial)


def test_small_irreducible_polynomials_are_told_from_reducible_ones() -> None:
    products = set()
    for left in range(2, 128):
        for right in range(2, 128):
            product = 0
            for bit in range(7):
                product ^= (left << bit) * (right >> bit & 1)
            products.add(product)
    for polynomial in range(2, 128):
        assert is_irreducible(polynomial) == (polynomial not in products)


def test_without_the_extra_there_is_an_error_that_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    rabin._compiled.cache_clear()
    with pytest.raises(UsageError) as caught:
        RabinCutter(POLYNOMIAL)
    assert caught.value.hint is not None and "pip install 'drctl[restic-chunker]'" in caught.value.hint
    rabin._compiled.cache_clear()


CUT = f"""
from drctl.repository.rabin import RabinCutter
print(list(RabinCutter({POLYNOMIAL}).cut(memoryview(bytes(range(256)) * 40_000), True)))
"""


def cut_with_cache(folder: Path) -> str:
    """Cut in a new process that keeps compiled code under `folder`."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder)}
    argv = [sys.executable, "-c", CUT]
    return subprocess.run(argv, env=environment, check=True, capture_output=True, text=True).stdout


def test_compiled_code_is_kept_for_the_user_alone(tmp_path: Path) -> None:
    before = cut_with_cache(tmp_path)
    kept = list(tmp_path.rglob("*.nbc"))
    assert len(kept) == 1
    assert (tmp_path / "drctl" / "numba").stat().st_mode & 0o777 == 0o700
    assert cut_with_cache(tmp_path) == before
    assert [path.stat().st_mtime_ns for path in kept] == [
        path.stat().st_mtime_ns for path in tmp_path.rglob("*.nbc")
    ]


def test_a_cache_folder_that_others_can_write_to_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "drctl" / "numba"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    cut_with_cache(tmp_path)
    assert list(folder.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "drctl").write_text("a file where a folder should be")
    cut_with_cache(tmp_path)


def test_several_threads_cut_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    cutter = RabinCutter(POLYNOMIAL)
    expected = list(cutter.cut(memoryview(CONTENT), True))
    results: list[list[int]] = []
    threads = [
        threading.Thread(target=lambda: results.append(list(cutter.cut(memoryview(CONTENT), True))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 4


def test_the_window_can_be_resized_after_it_was_cut() -> None:
    window = bytearray(CONTENT[: 2**21])
    with memoryview(window) as view:
        list(RabinCutter(POLYNOMIAL).cut(view, False))
    del window[:1000]
    assert hash_of(window) == hash_of(CONTENT[1000 : 2**21])
