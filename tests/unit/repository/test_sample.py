"""Samples: what is read is what was asked for, and can be asked for again."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drctl.errors import UsageError
from drctl.repository.sample import Amount, Everything, Part, Share, parse_sample

PACKS = [(hashlib.sha256(bytes([n])).digest(), 1000 + n) for n in range(200)]
packs = st.lists(
    st.tuples(st.binary(min_size=32, max_size=32), st.integers(1, 10**9)), unique_by=lambda p: p[0]
)


@pytest.mark.parametrize(
    ("text", "sample"),
    [("5%", Share(5.0)), ("0.5%", Share(0.5)), ("3/10", Part(3, 10)), ("2GiB", Amount(2 * 2**30))],
)
def test_the_three_forms_are_read(text: str, sample: object) -> None:
    assert parse_sample(text) == sample


@pytest.mark.parametrize("text", ["0%", "101%", "0/5", "6/5", "1/257", "5", "", "-1%", "1/2/3", "0B", "5 %%"])
def test_anything_else_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        parse_sample(text)


@given(packs, st.integers(1, 256))
def test_the_parts_are_everything_and_never_overlap(packs: list[tuple[bytes, int]], total: int) -> None:
    parts = [pack for number in range(1, total + 1) for pack in Part(number, total).choose(packs, 0)]
    assert sorted(parts) == sorted(packs)


@given(packs, st.integers(), st.sampled_from([Share(7), Amount(5000), Everything(), Part(1, 3)]))
def test_the_same_seed_chooses_the_same(packs: list[tuple[bytes, int]], seed: int, sample: Share) -> None:
    assert sample.choose(packs, seed) == sample.choose(packs[::-1], seed)


def test_another_seed_chooses_others() -> None:
    assert Share(5).choose(PACKS, 1) != Share(5).choose(PACKS, 2)


def test_a_share_is_that_share_and_at_least_one_pack() -> None:
    assert len(Share(5).choose(PACKS, 1)) == 10
    assert len(Share(0.01).choose(PACKS, 1)) == 1
    assert Share(5).choose([], 1) == []


def test_an_amount_is_reached_by_the_last_pack_and_not_before() -> None:
    chosen = Amount(5000).choose(PACKS, 1)
    assert sum(size for _, size in chosen) >= 5000
    assert len(chosen) == 5
