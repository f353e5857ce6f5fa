"""Laws of the prune plan, over facts of any kind."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drctl.errors import CorruptError, LockedError, RefusedError, UsageError
from drctl.repository.pack import PACK_TARGET, BlobType
from drctl.repository.prune import (
    MANY_SMALL,
    Fate,
    PackFacts,
    PruneFacts,
    PrunePlan,
    UnusedLimit,
    parse_unused_limit,
    plan_prune,
)
from drctl.repository.repo import StoredId

LOCKED_AT = datetime(2026, 1, 1, 12, tzinfo=UTC)
HEADER = 100


@st.composite
def pack_facts(draw: st.DrawFn) -> PackFacts:
    used_blobs = draw(st.integers(0, 20))
    used_bytes = draw(st.integers(used_blobs * 32, 2 * PACK_TARGET)) if used_blobs else 0
    unused = draw(st.one_of(st.just(0), st.integers(33, 2 * PACK_TARGET)))
    size = used_bytes + unused + HEADER
    return PackFacts(
        id=draw(st.binary(min_size=32, max_size=32)),
        kind=draw(st.sampled_from([BlobType.DATA, BlobType.DATA, BlobType.TREE, None])),
        size=size,
        stored_size=size if used_blobs else draw(st.sampled_from([None, size, 0])),
        blobs=used_blobs + bool(unused),
        used_blobs=used_blobs,
        used_bytes=used_bytes,
        body_bytes=used_bytes + unused,
    )


def _strays(identifiers: list[bytes]) -> tuple[StoredId, ...]:
    return tuple(StoredId(identifier, 7, LOCKED_AT) for identifier in identifiers)


facts_of_any_kind = st.builds(
    lambda packs, strays: PruneFacts(tuple(packs), _strays(strays), LOCKED_AT, 1),
    st.lists(pack_facts(), max_size=40, unique_by=lambda pack: pack.id),
    st.lists(st.binary(min_size=31, max_size=31), max_size=3, unique=True),
)
limits = st.one_of(
    st.just(UnusedLimit(None, 0)),
    st.builds(UnusedLimit, st.floats(0, 99)),
    st.builds(UnusedLimit, st.none(), st.integers(0, 10**9)),
)


@given(facts_of_any_kind, limits)
def test_a_pack_with_anything_needed_is_kept_or_repacked(facts: PruneFacts, limit: UnusedLimit) -> None:
    fates = {verdict.id: verdict.fate for verdict in plan_prune(facts, limit).verdicts}
    for pack in facts.packs:
        assert (fates[pack.id] in (Fate.KEEP, Fate.REPACK)) == (pack.used_blobs > 0)


@given(facts_of_any_kind, limits)
def test_what_stays_unused_is_within_the_limit(facts: PruneFacts, limit: UnusedLimit) -> None:
    plan = plan_prune(facts, limit)
    kept = {verdict.id for verdict in plan.packs(Fate.KEEP)}
    left = sum(pack.unused_bytes for pack in facts.packs if pack.id in kept)
    assert left == plan.unused_after <= limit.allowed(plan.used_bytes)


@given(facts_of_any_kind)
def test_with_a_limit_of_zero_no_pack_with_waste_stays(facts: PruneFacts) -> None:
    plan = plan_prune(facts, UnusedLimit(None, 0))
    kept = {verdict.id for verdict in plan.packs(Fate.KEEP)}
    assert all(not pack.unused_bytes for pack in facts.packs if pack.id in kept)
    assert plan.proves_absence


@given(facts_of_any_kind, limits)
def test_every_pack_has_one_verdict_with_a_reason(facts: PruneFacts, limit: UnusedLimit) -> None:
    verdicts = plan_prune(facts, limit).verdicts
    assert sorted(verdict.id for verdict in verdicts) == sorted(
        [pack.id for pack in facts.packs] + [stray.id for stray in facts.unreferenced]
    )
    assert all(verdict.reason for verdict in verdicts)


@given(facts_of_any_kind, limits)
def test_after_a_prune_there_is_nothing_left_to_do(facts: PruneFacts, limit: UnusedLimit) -> None:
    assert plan_prune(_carried_out(facts, plan_prune(facts, limit)), limit).is_empty


@given(facts_of_any_kind, limits, st.randoms())
def test_the_order_of_the_facts_does_not_matter(facts: PruneFacts, limit: UnusedLimit, dice: object) -> None:
    shuffled = list(facts.packs)
    dice.shuffle(shuffled)  # type: ignore[attr-defined]
    assert plan_prune(replace(facts, packs=tuple(shuffled)), limit) == plan_prune(facts, limit)


def _carried_out(facts: PruneFacts, plan: PrunePlan) -> PruneFacts:
    """What a prune makes of the packs: new ones of one kind, all needed, full but for the last."""
    fates = {verdict.id: verdict.fate for verdict in plan.verdicts}
    kept = [pack for pack in facts.packs if fates[pack.id] is Fate.KEEP]
    bytes_of = dict.fromkeys(BlobType, 0)
    for pack in facts.packs:
        if fates[pack.id] is Fate.REPACK:
            for kind in BlobType if pack.kind is None else [pack.kind]:
                bytes_of[kind] += pack.used_bytes // (2 if pack.kind is None else 1)
    for kind, total in bytes_of.items():
        for number, start in enumerate(range(0, total, PACK_TARGET)):
            body = min(total - start, PACK_TARGET)
            name = bytes([kind, number]) + b"new" * 10
            size = body + HEADER
            kept.append(PackFacts(name, kind, size, size, 1, 1, body, body))
    return replace(facts, packs=tuple(kept), unreferenced=())


def _whole(name: int, kind: BlobType, size: int) -> PackFacts:
    return PackFacts(bytes([name]) * 32, kind, size, size, 1, 1, size - HEADER, size - HEADER)


@pytest.mark.parametrize(("count", "joined"), [(MANY_SMALL - 1, 0), (MANY_SMALL, MANY_SMALL)])
def test_small_packs_are_joined_once_they_are_many(count: int, joined: int) -> None:
    packs = tuple(_whole(number, BlobType.DATA, 10_000) for number in range(count))
    assert len(plan_prune(PruneFacts(packs, (), LOCKED_AT, 1)).packs(Fate.REPACK)) == joined


def test_tree_packs_with_waste_are_repacked_whatever_the_limit() -> None:
    wasteful = replace(_whole(1, BlobType.TREE, 10**7), used_bytes=10**6)
    plan = plan_prune(PruneFacts((wasteful,), (), LOCKED_AT, 1), UnusedLimit(90.0))
    assert len(plan.packs(Fate.REPACK)) == 1


@pytest.mark.parametrize("stored_size", [None, 0, 9_999, 10_001])
def test_a_needed_pack_that_is_missing_or_of_another_size_ends_the_planning(stored_size: int | None) -> None:
    pack = replace(_whole(1, BlobType.DATA, 10_000), stored_size=stored_size)
    with pytest.raises(CorruptError, match=pack.file):
        plan_prune(PruneFacts((pack,), (), LOCKED_AT, 1))


def test_a_pack_younger_than_our_lock_ends_the_planning() -> None:
    young = StoredId(b"y" * 32, 7, LOCKED_AT + timedelta(seconds=1))
    with pytest.raises(LockedError):
        plan_prune(PruneFacts((), (young,), LOCKED_AT, 1))


def test_no_snapshot_at_all_ends_the_planning_unless_told() -> None:
    facts = PruneFacts((_whole(1, BlobType.DATA, 10_000),), (), LOCKED_AT, 0)
    with pytest.raises(RefusedError):
        plan_prune(facts)
    assert plan_prune(facts, remove_everything=True)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("0", UnusedLimit(None, 0)),
        ("5%", UnusedLimit(5.0)),
        ("1.5%", UnusedLimit(1.5)),
        ("2MiB", UnusedLimit(None, 2**21)),
    ],
)
def test_limits_are_read(text: str, limit: UnusedLimit) -> None:
    assert parse_unused_limit(text) == limit


@pytest.mark.parametrize("text", ["", "5", "100%", "-1%", "unlimited"])
def test_other_limits_are_usage_errors(text: str) -> None:
    with pytest.raises(UsageError):
        parse_unused_limit(text)


@pytest.mark.parametrize("text", ["0", "0%", "0B"])
def test_zero_is_zero_however_it_is_written(text: str) -> None:
    assert parse_unused_limit(text).is_zero
