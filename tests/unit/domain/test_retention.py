"""What never goes, what brakes, and the bugs of others, each by its name."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from drctl.domain.brakes import BrakeName, policy_fingerprint, still_engaged
from drctl.domain.plan import Retention
from drctl.domain.retention import Circumstances, Group, Hold, Judgement, SnapshotFacts, judge
from tests.unit.domain.retention_cases import (
    DAY,
    GROUP,
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

MONTH = Retention(keep_at_least=30 * DAY, gone_by=32 * DAY)


def useless(id: str, age: timedelta) -> SnapshotFacts:
    return replace(aged(id, age), complete=False)


def verdict_is_kept(judgement: Judgement, id: str) -> bool:
    return id in kept(judgement)


# --- what never goes ---------------------------------------------------------------------------


def test_the_last_good_one_stays_although_overdue_and_says_so() -> None:
    judgement = judge([aged("only", 90 * DAY)], MONTH, NOW, "UTC")
    assert reasons(judgement, "only") == ("last good backup", "due since 2026-09-24: gone by 32d")
    assert judgement.verdicts[0].keep
    assert judgement.verdicts[0].due_since == NOW - 59 * DAY


@pytest.mark.parametrize("floor", [0, 1, 2, 4])
def test_the_floor_never_goes_and_is_never_less_than_one(floor: int) -> None:
    facts = [aged(f"d{days}", days * DAY) for days in (50, 60, 70, 80, 90)]
    judgement = judge(facts, replace(MONTH, floor=floor), NOW, "UTC")
    assert len(kept(judgement)) == max(1, floor)
    assert "d50" in kept(judgement)


def test_a_hold_beats_gone_by_until_it_expires() -> None:
    held = replace(
        aged("held", 90 * DAY),
        held_by=(Hold(name="legal", owner="ann", reason="case 7", expires=NOW + HOUR),),
    )
    judgement = judge([*nightly(3), held], MONTH, NOW, "UTC")
    assert reasons(judgement, "held")[0] == "held by legal (ann): case 7, until 2026-11-22 13:00 UTC"
    assert verdict_is_kept(judgement, "held")
    at_expiry = judge([*nightly(3), held], MONTH, NOW + HOUR, "UTC")
    assert not verdict_is_kept(at_expiry, "held")


def test_a_hold_without_expiry_holds_for_ever() -> None:
    held = replace(aged("held", 9000 * DAY), held_by=(Hold(name="legal", owner="ann", reason="case 7"),))
    judgement = judge([*nightly(3), held], MONTH, NOW, "UTC")
    assert reasons(judgement, "held")[0] == "held by legal (ann): case 7, until released"
    assert verdict_is_kept(judgement, "held")


def test_an_expired_hold_beside_one_in_force_is_not_named() -> None:
    expired = Hold(name="old", owner="ann", reason="case 6", expires=NOW - HOUR)
    in_force = Hold(name="legal", owner="bo", reason="case 7")
    held = replace(aged("held", 90 * DAY), held_by=(expired, in_force))
    named = [
        reason
        for reason in reasons(judge([*nightly(2), held], MONTH, NOW, "UTC"), "held")
        if "held by" in reason
    ]
    assert named == ["held by legal (bo): case 7, until released"]


@pytest.mark.parametrize("protection", ["running", "being_restored"])
def test_expiry_never_hits_a_running_backup_or_one_being_restored(protection: str) -> None:
    """pgBackRest #2622, Barman #200."""
    facts = [*nightly(3), replace(aged("used", 90 * DAY), **{protection: True})]  # type: ignore[arg-type]
    judgement = judge(facts, MONTH, NOW, "UTC")
    assert reasons(judgement, "used")[0] == protection.replace("_", " ")
    assert verdict_is_kept(judgement, "used")


def test_the_parents_of_a_kept_child_stay_up_the_whole_chain() -> None:
    full = aged("full", 40 * DAY)
    middle = replace(aged("middle", 36 * DAY), parent="full")
    child = replace(aged("child", 29 * DAY), parent="middle")
    lone = aged("lone", 40 * DAY)
    judgement = judge([full, middle, child, lone, aged("d0", 0 * DAY)], MONTH, NOW, "UTC")
    assert kept(judgement) == {"full", "middle", "child", "d0"}
    assert reasons(judgement, "full")[0] == "parent of kept child"
    assert reasons(judgement, "middle")[0] == "parent of kept child"
    assert reasons(judgement, "full")[1].startswith("due since")


def test_a_whole_chain_goes_child_first() -> None:
    full = aged("full", 40 * DAY)
    child = replace(aged("child", 36 * DAY), parent="full")
    assert going(judge([full, child, aged("d0", 0 * DAY)], MONTH, NOW, "UTC")) == ["child", "full"]


def test_nothing_younger_than_keep_at_least_goes_whatever_the_rules_say() -> None:
    policy = Retention(last=1, keep_at_least=10 * DAY, gone_by=11 * DAY)
    assert kept(judge(nightly(30), policy, NOW, "UTC")) == {f"d{night}" for night in range(10)}


def test_a_silent_host_keeps_nothing_for_ever_by_being_silent() -> None:
    """Ages count from now: with the newest as the reference nothing of this would ever go."""
    facts = [aged(f"d{days}", days * DAY) for days in range(20, 60)]
    assert kept(judge(facts, MONTH, NOW, "UTC")) == {f"d{days}" for days in range(20, 31)}
    assert kept(judge(facts, MONTH, NOW + 300 * DAY, "UTC")) == {"d20"}


# --- what counts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flaw", "word"),
    [({"complete": False}, "incomplete"), ({"verified": False}, "not verified")],
)
def test_one_that_is_not_good_goes_once_a_newer_one_is_good_and_a_day_has_passed(
    flaw: dict[str, bool], word: str
) -> None:
    flawed = replace(aged("bad", 2 * DAY), **flaw)  # type: ignore[arg-type]
    policy = Retention(daily=30)
    after = judge([flawed, aged("good", DAY)], policy, NOW, "UTC")
    assert going(after) == ["bad"]
    assert reasons(after, "bad") == (f"due since 2026-11-21: {word}, and a newer backup is good",)
    before = judge([flawed, aged("older", 3 * DAY)], policy, NOW, "UTC")
    assert reasons(before, "bad") == (f"{word}, but no newer backup is good",)
    fresh = judge([replace(flawed, received=NOW - HOUR), aged("good", 0 * DAY)], policy, NOW, "UTC")
    assert reasons(fresh, "bad") == (f"{word}: kept 1d",)
    young = judge([flawed, aged("good", DAY)], replace(policy, keep_at_least=3 * DAY), NOW, "UTC")
    assert going(young) == []


def test_a_running_backup_pushes_nothing_out() -> None:
    facts = [replace(aged("running", 0 * DAY), running=True), aged("good", DAY)]
    judgement = judge(facts, Retention(last=1), NOW, "UTC")
    assert kept(judgement) == {"running", "good"}
    assert reasons(judgement, "good") == ("last good backup", "last 1")


@pytest.mark.parametrize("floor", [0, 1, 2])
def test_where_nothing_is_good_the_floor_is_never_less_than_one(floor: int) -> None:
    facts = [useless(f"d{days}", days * DAY) for days in (50, 60, 70)]
    assert len(kept(judge(facts, replace(MONTH, floor=floor), NOW, "UTC"))) == max(1, floor)


def test_where_nothing_is_good_the_best_there_is_stays() -> None:
    facts = [
        useless("newest", 40 * DAY),
        replace(aged("whole", 50 * DAY), verified=False),
        useless("oldest", 60 * DAY),
    ]
    judgement = judge(facts, MONTH, NOW, "UTC")
    assert kept(judgement) == {"whole"}
    assert reasons(judgement, "whole")[0] == "no good backup: the best there is"
    assert "floor" in brakes(judgement)


def test_where_nothing_is_good_one_dated_in_the_future_does_not_stand_in() -> None:
    future = replace(aged("future", 40 * DAY), time=NOW + 400 * DAY)
    assert "real" in kept(judge([future, useless("real", 50 * DAY)], MONTH, NOW, "UTC"))


def test_an_incremental_is_not_counted_as_a_full() -> None:
    """pgBackRest's and others' `keep 2 fulls` counted incrementals: the fulls they need went."""
    chain = [aged("full", 9 * DAY)]
    for day in range(8, -1, -1):
        chain.append(replace(aged(f"i{day}", day * DAY), parent=chain[-1].id))
    assert kept(judge(chain, Retention(last=2), NOW, "UTC")) == {one.id for one in chain}


@pytest.mark.parametrize(
    "ancestor",
    [None, useless("full", 9 * DAY), replace(aged("full", 9 * DAY), verified=False)],
)
def test_an_incremental_whose_full_is_gone_or_bad_counts_for_nothing(ancestor: SnapshotFacts | None) -> None:
    orphan = replace(aged("orphan", 0 * DAY), parent="full")
    facts = [orphan, aged("good", 5 * DAY), *([ancestor] if ancestor else [])]
    judgement = judge(facts, Retention(last=1), NOW, "UTC")
    assert {"good", "orphan"} <= kept(judgement)
    assert reasons(judgement, "good")[0] == "last good backup"
    assert reasons(judgement, "orphan") == (
        "its parent full is missing or not good, but no newer backup is good",
    )


def test_parents_in_a_circle_end_in_a_verdict() -> None:
    a, b = replace(aged("a", DAY), parent="b"), replace(aged("b", 2 * DAY), parent="a")
    assert kept(judge([a, b, aged("good", 0 * DAY)], MONTH, NOW, "UTC")) == {"a", "b", "good"}


# --- bugs of others ---------------------------------------------------------------------------------


@pytest.mark.parametrize("failures", [1, 7, 40])
def test_a_streak_of_failures_never_removes_the_last_good_one(failures: int) -> None:
    """Bareos #2489, Barman BAR-707."""
    streak = [useless(f"f{night}", night * DAY) for night in range(failures)]
    good = aged("good", failures * DAY)
    for policy in (Retention(last=1), Retention(daily=7), Retention(gone_by=3 * DAY), MONTH):
        assert "good" in kept(judge([*streak, good], policy, NOW, "UTC"))


def test_a_misspelt_filter_deletes_nothing_and_brakes() -> None:
    """restic #4568: a misspelt tag deleted all."""
    judgement = judge([], MONTH, NOW, "UTC")
    assert judgement.going == ()
    assert brakes(judgement) == ["empty-group"]


def test_a_group_the_plan_promises_and_nobody_backed_up_brakes() -> None:
    other = Group("shop", "database", "db1")
    judgement = judge(nightly(3), MONTH, NOW, "UTC", Circumstances(expected=(GROUP, other)))
    assert [(brake.name, brake.group) for brake in judgement.brakes] == [(BrakeName.EMPTY_GROUP, other)]


@pytest.mark.parametrize("received", [NOW - HOUR, NOW + 400 * DAY])
def test_one_dated_in_the_future_and_keep_last_1_delete_no_real_one(received: datetime) -> None:
    """One snapshot dated in the future plus `keep-last 1` deleted every real one."""
    from_the_future = replace(aged("future", HOUR), time=NOW + 400 * DAY, received=received)
    judgement = judge([aged("real", 2 * HOUR), from_the_future], Retention(last=1), NOW, "UTC")
    assert kept(judgement) == {"real", "future"}
    assert "future-snapshot" in brakes(judgement)
    assert reasons(judgement, "real")[0] == "last good backup"


def test_order_is_by_our_receipt_and_not_by_name_or_the_clients_clock() -> None:
    """WAL-G #636 ordered by name; others by timeline, after an upgrade."""
    facts = [
        snapshot("zzz", NOW - 3 * DAY, time=NOW - HOUR),
        snapshot("aaa", NOW - 1 * DAY, time=NOW - 900 * DAY),
        snapshot("mmm", NOW - 2 * DAY, time=NOW - 500 * DAY),
    ]
    judgement = judge(facts, Retention(last=1), NOW, "UTC")
    assert kept(judgement) == {"aaa"}
    assert going(judgement) == ["mmm", "zzz"]


def test_within_counts_from_now_and_not_from_the_newest() -> None:
    facts = [aged("d10", 10 * DAY), aged("d11", 11 * DAY), aged("d12", 12 * DAY)]
    assert kept(judge(facts, Retention(within=5 * DAY), NOW, "UTC")) == {"d10"}


# --- brakes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("back", "braked"),
    [(timedelta(minutes=9), False), (timedelta(minutes=11), True), (2 * DAY, True)],
)
def test_a_clock_that_fell_back_behind_the_newest_receipt_brakes(back: timedelta, braked: bool) -> None:
    judgement = judge(nightly(3), Retention(daily=30), NOW - back, "UTC")
    assert ("clock-jump" in brakes(judgement)) is braked
    assert going(judgement) == []


@pytest.mark.parametrize("nights", [2, 4, 40])
def test_a_clock_400_days_ahead_deletes_nothing_unasked(nights: int) -> None:
    judgement = judge(nightly(nights), MONTH, NOW + 400 * DAY, "UTC")
    assert "clock-jump" in brakes(judgement)


def test_a_regularly_judged_silent_host_sets_off_no_clock_brake() -> None:
    facts = nightly(40)
    for day in range(200):
        judgement = judge(facts, MONTH, NOW + day * DAY, "UTC")
        assert "clock-jump" not in brakes(judgement)
        facts = [verdict.snapshot for verdict in judgement.kept]
    assert [one.id for one in facts] == ["d0"]


@pytest.mark.parametrize("off", [-11, 11])
def test_a_storage_whose_clock_disagrees_brakes(off: int) -> None:
    def with_storage_at(minutes: int) -> Judgement:
        around = Circumstances(storage_now=NOW + timedelta(minutes=minutes))
        return judge(nightly(3), MONTH, NOW, "UTC", around)

    assert brakes(with_storage_at(off)) == ["clock-jump"]
    assert brakes(with_storage_at(off - off // abs(off) * 2)) == []


def test_a_receipt_elsewhere_in_the_repository_shows_a_clock_that_fell_back() -> None:
    around = Circumstances(newest_receipt=NOW + HOUR)
    assert brakes(judge(nightly(3), MONTH, NOW, "UTC", around)) == ["clock-jump"]


def test_an_edited_policy_brakes_once_something_would_go() -> None:
    edited = Circumstances(known_fingerprint=policy_fingerprint(replace(MONTH, gone_by=90 * DAY), "UTC"))
    same = Circumstances(known_fingerprint=policy_fingerprint(MONTH, "UTC"))
    assert brakes(judge(nightly(33), MONTH, NOW, "UTC", edited)) == ["edited-policy"]
    assert brakes(judge(nightly(33), MONTH, NOW, "UTC", same)) == []
    assert brakes(judge(nightly(3), MONTH, NOW, "UTC", edited)) == []


def test_a_fingerprint_changes_with_every_field_and_the_zone_and_with_nothing_else() -> None:
    changes: list[dict[str, object]] = [
        {"keep_at_least": DAY}, {"gone_by": DAY}, {"last": 1}, {"hourly": 1}, {"daily": 1}, {"weekly": 1},
        {"monthly": 1}, {"yearly": 1}, {"within": DAY}, {"purge_lag": HOUR}, {"floor": 2},
        {"brake_fraction": 0.4},
    ]  # fmt: skip
    prints = {policy_fingerprint(Retention(**change), "UTC") for change in changes}  # type: ignore[arg-type]
    prints |= {policy_fingerprint(Retention(), "UTC"), policy_fingerprint(Retention(), "Europe/Berlin")}
    assert len(prints) == len(changes) + 2
    assert policy_fingerprint(Retention(), "UTC") == policy_fingerprint(Retention(floor=1), "UTC")


@pytest.mark.parametrize(
    ("nights", "policy", "braked"),
    [
        (4, Retention(last=1), False),  # three go: too few to be a mass
        (5, Retention(last=1), True),
        (9, Retention(last=5), False),  # four of nine, and half of its eight days: not more than half
        (9, Retention(last=4), True),
        (40, Retention(last=30), False),
        (40, Retention(last=30, brake_fraction=0.1), True),
        (9, Retention(last=1, brake_fraction=1.0), False),
    ],
)
def test_a_mass_deletion_brakes(nights: int, policy: Retention, braked: bool) -> None:
    judgement = judge(nightly(nights), policy, NOW, "UTC")
    assert ("mass-deletion" in brakes(judgement)) is braked


def test_garbage_that_stays_does_not_thin_out_the_count_of_a_mass_deletion() -> None:
    garbage = [useless(f"g{number}", timedelta(minutes=number)) for number in range(1000)]
    same_day = [aged(f"m{number}", 5 * DAY + timedelta(minutes=number)) for number in range(1, 31)]
    judgement = judge([*nightly(10), *same_day, *garbage], Retention(daily=30), NOW, "UTC")
    (brake,) = judgement.brakes
    assert brake.reason == "shop/files/web1: 30 of 40 good backups would go at once"


def test_a_flood_of_good_ones_that_would_crowd_out_the_history_brakes() -> None:
    """Safety 16: as many as the rule keeps are exactly half, and no more."""
    flood = [aged(f"x{number}", timedelta(minutes=number)) for number in range(7)]
    real = [aged(f"d{night}", night * DAY) for night in range(1, 8)]
    judgement = judge([*real, *flood], Retention(last=7), NOW, "UTC")
    assert "mass-deletion" in brakes(judgement)


def test_a_flood_of_good_ones_deletes_nothing_younger_than_keep_at_least() -> None:
    flood = [aged(f"x{number}", timedelta(seconds=number)) for number in range(500)]
    judgement = judge([*nightly(30), *flood], Retention(last=7, keep_at_least=30 * DAY), NOW, "UTC")
    assert going(judgement) == []


def test_a_repository_moved_with_new_receipt_times_brakes() -> None:
    """`cp -r` gives every file today's time: all fall into one day."""
    moved = [snapshot(f"d{night}", NOW - HOUR, time=NOW - night * DAY) for night in range(1, 31)]
    judgement = judge(moved, Retention(daily=30), NOW, "UTC")
    assert "mass-deletion" in brakes(judgement)


def test_a_brake_of_one_group_names_it_and_another_group_is_judged_for_itself() -> None:
    other = Group("shop", "files", "web2")
    here, there = nightly(33), [replace(one, id=f"w2-{one.id}", group=other) for one in nightly(60)]
    judgement = judge([*here, *there], MONTH, NOW, "UTC")
    assert kept(judgement) == {f"d{n}" for n in range(31)} | {f"w2-d{n}" for n in range(31)}
    judgement = judge([*here, *there[40:]], MONTH, NOW, "UTC")
    assert {brake.group for brake in judgement.brakes} == {other}


def test_an_override_names_one_brake_and_needs_a_reason() -> None:
    judgement = judge(nightly(40), Retention(last=1), NOW + 400 * DAY, "UTC")
    assert brakes(judgement) == ["clock-jump", "mass-deletion"]
    assert len(still_engaged(judgement.brakes, {})) == 2
    assert len(still_engaged(judgement.brakes, {BrakeName.MASS_DELETION: "  "})) == 2
    left = still_engaged(judgement.brakes, {BrakeName.MASS_DELETION: "first run, agreed with ann"})
    assert [brake.name for brake in left] == [BrakeName.CLOCK_JUMP]
