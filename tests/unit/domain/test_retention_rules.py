"""Every rule and bound, at its very edges."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from drctl.domain.plan import Retention
from drctl.domain.retention import SnapshotFacts, judge
from drctl.domain.retention_rules import policy_faults
from drctl.errors import UsageError
from tests.unit.domain.retention_cases import (
    DAY,
    HOUR,
    NOW,
    aged,
    brakes,
    going,
    kept,
    nightly,
    reasons,
    snapshot,
)

SECOND = timedelta(seconds=1)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (Retention(last=3), {"d0", "d1", "d2"}),
        (Retention(last=1), {"d0"}),
        (Retention(daily=4), {"d0", "d1", "d2", "d3"}),
        # 2026-11-22 is a Sunday: the weeks end on d0, d7, d14
        (Retention(weekly=3), {"d0", "d7", "d14"}),
        (Retention(monthly=2), {"d0", "d22"}),
        (Retention(yearly=5), {"d0"}),
        (Retention(within=2 * DAY), {"d0", "d1"}),
        (Retention(within=2 * DAY + SECOND), {"d0", "d1", "d2"}),
        (Retention(last=1, floor=3), {"d0", "d1", "d2"}),
        (Retention(last=2, weekly=2), {"d0", "d1", "d7"}),
        # the one in force 3 days ago stays too: an instant then is restored from it
        (Retention(last=1, keep_at_least=3 * DAY), {"d0", "d1", "d2", "d3"}),
        (Retention(last=1, keep_at_least=3 * DAY - SECOND), {"d0", "d1", "d2", "d3"}),
        (Retention(last=1, keep_at_least=3 * DAY + SECOND), {"d0", "d1", "d2", "d3", "d4"}),
        # gone by 5 d is forgotten at 4 d, for purging takes its day
        (Retention(gone_by=5 * DAY), {"d0", "d1", "d2", "d3"}),
        (Retention(gone_by=5 * DAY + SECOND), {"d0", "d1", "d2", "d3", "d4"}),
        (Retention(gone_by=5 * DAY, purge_lag=2 * DAY), {"d0", "d1", "d2"}),
        (Retention(daily=30, gone_by=4 * DAY), {"d0", "d1", "d2"}),
        (Retention(keep_at_least=30 * DAY), {f"d{night}" for night in range(40)}),
        (Retention(), {f"d{night}" for night in range(40)}),
    ],
)
def test_each_rule_keeps_what_it_says_of_forty_nightly_backups(policy: Retention, expected: set[str]) -> None:
    assert kept(judge(nightly(40), policy, NOW, "UTC")) == expected


def test_hourly_keeps_the_newest_of_each_hour() -> None:
    facts = [aged(f"m{minutes}", timedelta(minutes=minutes)) for minutes in range(0, 240, 20)]
    # now is 12:00 sharp: 11:40 is the newest of the hour before
    assert kept(judge(facts, Retention(hourly=3), NOW, "UTC")) == {"m0", "m20", "m80"}


def test_yearly_keeps_the_newest_of_each_year() -> None:
    facts = [snapshot(f"y{year}", utc(f"{year}-12-31 23:00")) for year in range(2020, 2026)]
    assert kept(judge(facts, Retention(yearly=3), NOW, "UTC")) == {"y2025", "y2024", "y2023"}


def test_no_rules_and_no_bounds_keep_everything_and_say_so() -> None:
    facts = [*nightly(3), snapshot("failed", NOW - 900 * DAY, complete=False)]
    judgement = judge(facts, Retention(), NOW, "UTC")
    assert going(judgement) == []
    assert reasons(judgement, "d2") == ("no rule is set: everything is kept",)


def test_without_rules_what_is_not_due_by_gone_by_stays() -> None:
    judgement = judge(nightly(40), Retention(keep_at_least=30 * DAY, gone_by=32 * DAY), NOW, "UTC")
    assert kept(judgement) == {f"d{night}" for night in range(31)}
    assert reasons(judgement, "d30") == ("no rule is set: kept until gone by 32d",)


def test_reasons_are_readable_and_say_since_when_it_was_due() -> None:
    judgement = judge(nightly(40), Retention(daily=2, keep_at_least=3 * DAY, gone_by=31 * DAY), NOW, "UTC")
    assert reasons(judgement, "d0") == ("last good backup", "kept at least 3d", "daily 2026-11-22")
    assert reasons(judgement, "d1") == ("kept at least 3d", "daily 2026-11-21")
    assert reasons(judgement, "d3") == ("in force 3d ago",)
    assert reasons(judgement, "d4") == ("due since 2026-11-22: no rule keeps it",)
    assert reasons(judgement, "d39") == ("due since 2026-10-18: no rule keeps it",)


def test_gone_by_names_the_day_from_which_it_was_due() -> None:
    judgement = judge(nightly(40), Retention(gone_by=31 * DAY), NOW, "UTC")
    assert reasons(judgement, "d33") == ("due since 2026-11-19: gone by 31d",)
    verdict = next(verdict for verdict in judgement.verdicts if verdict.snapshot.id == "d33")
    assert verdict.due_since == NOW - 3 * DAY


@pytest.mark.parametrize(
    ("policy", "since"),
    [
        (Retention(last=2), 1),  # pushed out when the second newer one came
        (Retention(daily=2), 1),
        (Retention(within=12 * HOUR), 2.5),
        (Retention(last=1), 2),
        (Retention(last=1, keep_at_least=1 * DAY), 1),  # in force until d2 was a day old
        (Retention(daily=5, gone_by=3 * DAY), 1),
        (Retention(daily=1, gone_by=3 * DAY), 2),  # the rule gave it up before the bound
    ],
)
def test_what_goes_is_due_since_the_instant_the_last_rule_gave_it_up(policy: Retention, since: float) -> None:
    verdicts = judge(nightly(4), policy, NOW, "UTC").verdicts
    assert next(verdict.due_since for verdict in verdicts if verdict.snapshot.id == "d3") == NOW - since * DAY


# --- the calendar ------------------------------------------------------------------------


def test_days_are_those_of_the_configured_zone() -> None:
    late, early = snapshot("late", utc("2026-11-20 22:30")), snapshot("early", utc("2026-11-20 23:30"))
    assert kept(judge([late, early], Retention(daily=5), NOW, "UTC")) == {"early"}
    assert kept(judge([late, early], Retention(daily=5), NOW, "Europe/Berlin")) == {"late", "early"}


@pytest.mark.parametrize(
    ("first", "last", "hours"),
    [
        ("2026-10-24 22:00", "2026-10-25 22:00", 25),  # 25 October in Berlin
        ("2026-03-28 23:00", "2026-03-29 21:00", 23),  # 29 March in Berlin
    ],
)
def test_a_day_of_23_or_25_hours_is_one_day_of_as_many_hours(first: str, last: str, hours: int) -> None:
    start, end = utc(first), utc(last)
    facts = [snapshot(f"h{hour}", start + hour * HOUR) for hour in range(hours)]
    assert facts[-1].received == end
    later = end + 3 * HOUR
    assert len(kept(judge(facts, Retention(hourly=100), later, "Europe/Berlin"))) == hours
    assert kept(judge(facts, Retention(daily=100), later, "Europe/Berlin")) == {f"h{hours - 1}"}


@pytest.mark.parametrize("change", ["2026-10-25 12:00", "2026-03-29 12:00"])
def test_ages_are_elapsed_seconds_over_the_changes_of_the_clock(change: str) -> None:
    now = utc(change)
    facts = [
        snapshot("new", now),
        snapshot("young", now - DAY + SECOND),
        snapshot("old", now - DAY),
    ]
    assert kept(judge(facts, Retention(within=DAY), now, "Europe/Berlin")) == {"new", "young"}
    assert kept(judge(facts, Retention(gone_by=DAY, purge_lag=0 * DAY), now, "Europe/Berlin")) == {
        "new",
        "young",
    }


def test_instants_given_in_a_local_zone_differ_by_elapsed_seconds_too() -> None:
    """Python subtracts two instants of one zone by the wall clock: 23.5 hours here instead of 24.5."""
    berlin = ZoneInfo("Europe/Berlin")
    now = datetime(2026, 10, 25, 12, tzinfo=berlin)
    facts = [snapshot("new", now), snapshot("old", datetime(2026, 10, 24, 12, 30, tzinfo=berlin))]
    assert kept(judge(facts, Retention(within=DAY), now, "Europe/Berlin")) == {"new"}


def test_month_ends_are_buckets_and_not_pairs_of_comparisons() -> None:
    """Restic's and others' months by comparison confused January with the January before."""
    facts = [
        snapshot("jan31", utc("2026-01-31 12:00")),
        snapshot("jan30", utc("2026-01-30 12:00")),
        snapshot("feb28", utc("2026-02-28 12:00")),
        snapshot("mar01", utc("2026-03-01 12:00")),
        snapshot("mar31", utc("2026-03-31 12:00")),
        snapshot("jan25", utc("2025-01-31 12:00")),
        snapshot("leap", utc("2024-02-29 12:00")),
    ]
    assert kept(judge(facts, Retention(monthly=12), NOW, "UTC")) == {
        "jan31",
        "feb28",
        "mar31",
        "jan25",
        "leap",
    }


def test_weeks_are_iso_weeks_over_the_new_year() -> None:
    facts = [
        snapshot("dec31", utc("2025-12-31 12:00")),
        snapshot("jan01", utc("2026-01-01 12:00")),
        snapshot("dec28", utc("2025-12-28 12:00")),
    ]
    judgement = judge(facts, Retention(weekly=5), NOW, "UTC")
    assert kept(judgement) == {"jan01", "dec28"}
    assert "weekly 2026-W01" in reasons(judgement, "jan01")


def test_a_gap_uses_up_no_bucket() -> None:
    facts = [aged("d0", 0 * DAY), aged("d5", 5 * DAY), aged("d9", 9 * DAY), aged("d12", 12 * DAY)]
    assert kept(judge(facts, Retention(daily=3), NOW, "UTC")) == {"d0", "d5", "d9"}


def test_one_receipt_time_for_two_is_ordered_by_id_the_same_way_each_time() -> None:
    twins = [aged("aa", DAY), aged("bb", DAY)]
    assert kept(judge(twins, Retention(last=1), NOW, "UTC")) == {"bb"}
    assert kept(judge(twins[::-1], Retention(last=1), NOW, "UTC")) == {"bb"}


# --- policies that cannot be kept ------------------------------------------------------------


def test_gone_by_must_leave_room_for_a_full_older_than_keep_at_least_and_for_purging() -> None:
    policy = Retention(keep_at_least=30 * DAY, gone_by=32 * DAY)
    assert policy_faults(policy, DAY) == ()
    assert policy_faults(policy, 25 * HOUR) == (
        "gone_by 32d is less than keep_at_least 30d + full interval 1d 1h + purge_lag 1d = 32d 1h",
    )


@pytest.mark.parametrize(
    ("policy", "fault"),
    [
        (Retention(keep_at_least=30 * DAY, gone_by=30 * DAY), "gone_by 30d is less than"),
        (Retention(gone_by=DAY), "gone_by 1d leaves no time beside purge_lag 1d"),
        (Retention(last=-1), "last is negative: -1"),
        (Retention(weekly=-1), "weekly is negative: -1"),
        (Retention(floor=-1), "floor is negative: -1"),
        (Retention(within=-DAY), "within is negative: -86400 s"),
        (Retention(brake_fraction=0), "brake_fraction is not above 0 and up to 1: 0"),
        (Retention(brake_fraction=1.5), "brake_fraction is not above 0 and up to 1: 1.5"),
    ],
)
def test_a_policy_that_contradicts_itself_judges_nothing(policy: Retention, fault: str) -> None:
    with pytest.raises(UsageError, match=r"retention: .*") as caught:
        judge(nightly(40), policy, NOW, "UTC")
    assert fault in caught.value.message


def test_an_instant_without_a_zone_or_an_id_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="without a time zone"):
        snapshot("a", datetime(2026, 1, 1))
    with pytest.raises(ValueError, match="without a time zone"):
        judge(nightly(2), Retention(last=1), datetime(2026, 1, 1), "UTC")
    with pytest.raises(ValueError, match="two snapshots of one id: a"):
        judge([aged("a", DAY), aged("a", 2 * DAY)], Retention(last=1), NOW, "UTC")


def test_a_judgement_without_anything_strange_engages_no_brake() -> None:
    facts: list[SnapshotFacts] = nightly(32)
    assert brakes(judge(facts, Retention(keep_at_least=30 * DAY, gone_by=32 * DAY), NOW, "UTC")) == []
