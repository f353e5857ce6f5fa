"""Laws of retention, over whatever snapshots and policies hypothesis thinks of."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from drctl.domain.plan import Retention
from drctl.domain.retention import Group, Hold, Judgement, SnapshotFacts, judge
from tests.unit.domain.retention_cases import DAY, NOW, kept

law = settings(max_examples=80, deadline=None)

ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Pacific/Apia", "Asia/Kathmandu"])
# plainly near now, in whole days too, and around changes of the clock, ends of months and years
HOURS_AGO = st.one_of(
    st.integers(0, 60 * 24),
    st.integers(0, 60).map(lambda days: days * 24),
    st.integers(27 * 24, 30 * 24),  # 2026-10-25
    st.integers(237 * 24, 240 * 24),  # 2026-03-29
    st.integers(320 * 24, 328 * 24),  # New Year
    st.integers(996 * 24, 1000 * 24),  # 2024-02-29
)
INSTANTS = HOURS_AGO.map(lambda hours: NOW - timedelta(hours=hours))
GROUPS = st.sampled_from([Group("shop", "files", "web1"), Group("shop", "database", "db1")])
HOLDS = st.tuples() | st.tuples(
    st.builds(
        Hold,
        name=st.just("legal"),
        owner=st.just("ann"),
        reason=st.just("case 7"),
        expires=st.none() | st.integers(-50, 50).map(lambda days: NOW + days * DAY),
    )
)
DURATIONS = st.integers(0, 100 * 24).map(lambda hours: timedelta(hours=hours))
COUNTS = st.integers(0, 12)


@st.composite
def policies(draw: st.DrawFn, *, with_rules: bool = False) -> Retention:
    keep_at_least = draw(st.none() | DURATIONS)
    purge_lag = draw(st.sampled_from([timedelta(), DAY]))
    room = draw(st.none() | DURATIONS)
    gone_by = None if room is None else (keep_at_least or timedelta()) + purge_lag + room + timedelta(hours=1)
    counts = {name: draw(COUNTS) for name in ("last", "hourly", "daily", "weekly", "monthly", "yearly")}
    if with_rules:
        counts["last"] += 1
    within, floor = draw(st.none() | DURATIONS), draw(st.integers(0, 4))
    return Retention(keep_at_least, gone_by, **counts, within=within, purge_lag=purge_lag, floor=floor)


@st.composite
def histories(draw: st.DrawFn, *, most: int = 14) -> list[SnapshotFacts]:
    size = draw(st.integers(0, most))
    facts: list[SnapshotFacts] = []
    for number in range(size):
        received = draw(INSTANTS)
        parents = st.none() | st.sampled_from([one.id for one in facts]) if facts else st.none()
        facts.append(
            SnapshotFacts(
                id=f"s{number}",
                group=draw(GROUPS),
                time=received - draw(DURATIONS),
                received=received,
                complete=draw(st.sampled_from([True, True, True, False])),
                verified=draw(st.sampled_from([True, True, True, False])),
                held_by=draw(HOLDS) if draw(st.booleans()) else (),
                running=draw(st.sampled_from([False] * 9 + [True])),
                being_restored=draw(st.sampled_from([False] * 9 + [True])),
                parent=draw(parents) if draw(st.sampled_from([False, False, True])) else None,
            )
        )
    return facts


def good(facts: list[SnapshotFacts]) -> list[SnapshotFacts]:
    """Those beyond all doubt; the newest first."""
    plain = [one for one in facts if one.complete and one.verified and not one.running and one.parent is None]
    return sorted(plain, key=lambda one: (one.received, one.id), reverse=True)


def ages(judgement: Judgement) -> list[timedelta]:
    return [NOW - verdict.snapshot.received for verdict in judgement.going]


@law
@given(histories(), policies(), ZONES)
def test_forgetting_twice_forgets_nothing_more(
    facts: list[SnapshotFacts], policy: Retention, zone: str
) -> None:
    first = judge(facts, policy, NOW, zone)
    second = judge([verdict.snapshot for verdict in first.kept], policy, NOW, zone)
    assert kept(second) == kept(first)


@law
@given(histories(), policies(), ZONES, st.integers(0, 30))
def test_an_aborted_run_that_is_begun_again_ends_as_if_never_aborted(
    facts: list[SnapshotFacts], policy: Retention, zone: str, done: int
) -> None:
    first = judge(facts, policy, NOW, zone)
    gone = {verdict.snapshot.id for verdict in first.going[:done]}
    again = judge([one for one in facts if one.id not in gone], policy, NOW, zone)
    assert kept(again) == kept(first)


@law
@given(histories(), policies(), ZONES)
def test_the_last_good_one_of_each_group_always_stays(
    facts: list[SnapshotFacts], policy: Retention, zone: str
) -> None:
    judgement = judge(facts, policy, NOW, zone)
    for group in {one.group for one in facts}:
        assert any(verdict.snapshot.group == group for verdict in judgement.kept)
        # a parentless one is good for sure, so a good one at least as new as it stays
        newest = next((one for one in good(facts) if one.group == group), None)
        if newest is not None:
            assert any(
                verdict.snapshot.group == group
                and verdict.snapshot.complete
                and verdict.snapshot.verified
                and not verdict.snapshot.running
                and verdict.snapshot.received >= newest.received
                for verdict in judgement.kept
            )


@law
@given(histories(), policies(), ZONES)
def test_what_is_held_running_or_being_restored_never_goes(
    facts: list[SnapshotFacts], policy: Retention, zone: str
) -> None:
    for verdict in judge(facts, policy, NOW, zone).going:
        one = verdict.snapshot
        assert not (one.running or one.being_restored)
        assert all(hold.expires is not None and hold.expires <= NOW for hold in one.held_by)


@law
@given(histories(), policies(), ZONES)
def test_nothing_younger_than_keep_at_least_goes(
    facts: list[SnapshotFacts], policy: Retention, zone: str
) -> None:
    if policy.keep_at_least is not None:
        assert all(age >= policy.keep_at_least for age in ages(judge(facts, policy, NOW, zone)))


@law
@given(histories(), policies(), ZONES)
def test_nothing_beyond_gone_by_stays_without_a_stated_exception(
    facts: list[SnapshotFacts], policy: Retention, zone: str
) -> None:
    exceptions = (
        "last good",
        "one of the last",
        "no good backup",
        "held by",
        "running",
        "being restored",
        "parent of",
    )
    for verdict in judge(facts, policy, NOW, zone).kept:
        if policy.gone_by is not None and NOW - verdict.snapshot.received >= policy.gone_by:
            assert verdict.reasons[0].startswith(exceptions)
            assert verdict.due_since is not None


@law
@given(histories(), policies(), ZONES)
def test_no_kept_child_is_without_its_parent(
    facts: list[SnapshotFacts], policy: Retention, zone: str
) -> None:
    judgement = judge(facts, policy, NOW, zone)
    for verdict in judgement.kept:
        assert verdict.snapshot.parent is None or verdict.snapshot.parent in kept(judgement)


@law
@given(histories(), policies(), ZONES)
def test_every_verdict_says_why_and_what_goes_says_since_when(
    facts: list[SnapshotFacts], policy: Retention, zone: str
) -> None:
    judgement = judge(facts, policy, NOW, zone)
    assert sorted(verdict.snapshot.id for verdict in judgement.verdicts) == sorted(one.id for one in facts)
    assert all(verdict.reasons for verdict in judgement.verdicts)
    for verdict in judgement.going:
        assert verdict.due_since is not None
        assert verdict.snapshot.received <= verdict.due_since <= NOW or policy.gone_by == policy.purge_lag


@law
@given(
    histories(),
    policies(with_rules=True),
    ZONES,
    st.sampled_from(["last", "hourly", "daily", "weekly", "monthly"]),
)
def test_a_rule_that_keeps_more_keeps_all_it_kept_before(
    facts: list[SnapshotFacts], policy: Retention, zone: str, rule: str
) -> None:
    more = replace(policy, **{rule: getattr(policy, rule) + 1})
    assert kept(judge(facts, policy, NOW, zone)) <= kept(judge(facts, more, NOW, zone))


@law
@given(histories(), policies(with_rules=True), ZONES, st.integers(1, 10_000))
def test_time_alone_never_brings_one_back(
    facts: list[SnapshotFacts], policy: Retention, zone: str, hours: int
) -> None:
    later = judge(facts, policy, NOW + timedelta(hours=hours), zone)
    assert kept(later) <= kept(judge(facts, policy, NOW, zone))


@law
@given(
    histories(),
    histories(most=8),
    policies(),
    ZONES,
    st.sampled_from(["future", "received ahead", "partial", "unverified", "orphan"]),
)
def test_garbage_future_and_partial_snapshots_remove_no_legitimate_one(
    facts: list[SnapshotFacts], added: list[SnapshotFacts], policy: Retention, zone: str, flaw: str
) -> None:
    flaws: dict[str, dict[str, object]] = {
        "future": {"time": NOW + 400 * DAY},
        "received ahead": {"received": NOW + 400 * DAY},
        "partial": {"complete": False},
        "unverified": {"verified": False},
        "orphan": {"parent": "nowhere"},
    }
    garbage = [
        replace(one, **{"id": f"g-{one.id}", "parent": one.parent and f"g-{one.parent}", **flaws[flaw]})  # type: ignore[arg-type]
        for one in added
    ]
    # without chains: what only a child that is itself not good keeps alive is not legitimate
    facts = [replace(one, parent=None) for one in facts]
    before = judge(facts, policy, NOW, zone)
    after = kept(judge([*facts, *garbage], policy, NOW, zone))
    assert kept(before) & {one.id for one in good(facts)} <= after


@law
@given(histories(), ZONES)
def test_no_rules_and_no_bounds_keep_everything(facts: list[SnapshotFacts], zone: str) -> None:
    assert judge(facts, Retention(), NOW, zone).going == ()
