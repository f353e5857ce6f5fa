"""Brakes: what makes a deletion look like a mistake, an attack or a broken clock.

Invariant: a brake only ever stops. It names itself, so that overriding one never overrides
another, and no override goes without a written reason.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from enum import Enum

from drctl.domain.plan import Retention
from drctl.domain.snapshot_facts import Group, SnapshotFacts
from drctl.domain.units import show_duration

CLOCK_TOLERANCE = timedelta(minutes=10)  # clocks kept by NTP differ by less, wrong zones by more
MASS_DELETION_MINIMUM = 3  # up to so many of a group may go at once whatever part of it they are
_SILENCE = timedelta(days=30)  # for policies without bounds


class BrakeName(Enum):
    """The names by which a brake is overridden."""

    CLOCK_JUMP = "clock-jump"
    FUTURE_SNAPSHOT = "future-snapshot"
    EMPTY_GROUP = "empty-group"
    EDITED_POLICY = "edited-policy"
    MASS_DELETION = "mass-deletion"
    FLOOR = "floor"


@dataclass(frozen=True, slots=True)
class Brake:
    """Why nothing may be deleted now. `group` is None where it concerns all."""

    name: BrakeName
    reason: str
    group: Group | None = None


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is known beside the snapshots; None is 'not known', which stops nothing.

    `known_fingerprint`: `policy_fingerprint` of the last apply. `storage_now`: the storage's own
    clock, a second witness. `newest_receipt`: of the whole repository, where only a part of it is
    judged. `expected`: groups the plan promises, each of which must have snapshots."""

    known_fingerprint: str | None = None
    storage_now: datetime | None = None
    newest_receipt: datetime | None = None
    expected: Collection[Group] = ()


@dataclass(frozen=True, slots=True)
class GroupOutcome:
    """One group under a policy, newest first: all its snapshots, the good ones, those that go."""

    group: Group
    all: Sequence[SnapshotFacts]
    good: Sequence[SnapshotFacts]
    going: Collection[str]


def engaged(
    outcomes: Sequence[GroupOutcome],
    policy: Retention,
    time_zone: str,
    now: datetime,
    around: Circumstances,
) -> tuple[Brake, ...]:
    """Every brake that the outcome of a judgement sets off."""
    something_goes = any(outcome.going for outcome in outcomes)
    return (
        *_empty_groups(outcomes, around.expected),
        *_clock_jumps(outcomes, policy, now, around, something_goes=something_goes),
        *_future_snapshots(outcomes, now),
        *(_edited_policy(policy, time_zone, around.known_fingerprint) if something_goes else ()),
        *(brake for outcome in outcomes for brake in _mass_deletions(outcome, policy)),
        *(brake for outcome in outcomes for brake in _floor(outcome, policy)),
    )


def still_engaged(brakes: Sequence[Brake], overrides: Mapping[BrakeName, str]) -> tuple[Brake, ...]:
    """The brakes that no override names. `overrides` maps a name to the reason somebody gave; an
    empty reason overrides nothing."""
    return tuple(brake for brake in brakes if not overrides.get(brake.name, "").strip())


def policy_fingerprint(policy: Retention, time_zone: str) -> str:
    """16 hex digits that change when what the policy keeps may change. Fields at their default do
    not count, so that a new field in a newer drctl is no edit."""
    said = [
        f"{part.name}={getattr(policy, part.name)!r}"
        for part in fields(policy)
        if getattr(policy, part.name) != part.default
    ]
    return hashlib.sha256("\n".join([time_zone, *sorted(said)]).encode()).hexdigest()[:16]


def _empty_groups(outcomes: Sequence[GroupOutcome], expected: Collection[Group]) -> Iterator[Brake]:
    if not outcomes:
        yield Brake(BrakeName.EMPTY_GROUP, "no snapshot matches: is the filter spelt right?")
    for group in sorted(set(expected) - {outcome.group for outcome in outcomes}):
        yield Brake(BrakeName.EMPTY_GROUP, f"{group}: the plan promises backups and there are none", group)


def _clock_jumps(
    outcomes: Sequence[GroupOutcome],
    policy: Retention,
    now: datetime,
    around: Circumstances,
    *,
    something_goes: bool,
) -> Iterator[Brake]:
    receipts = [outcome.all[0].received for outcome in outcomes]
    if around.newest_receipt is not None:
        receipts.append(around.newest_receipt)
    newest = max(receipts, default=now)
    if newest > now + CLOCK_TOLERANCE:
        reason = f"now is {_at(now)}, yet a snapshot was received {_at(newest)}"
        yield Brake(BrakeName.CLOCK_JUMP, reason)
    # A host that fell silent loses its old snapshots day by day, and has none due left by then:
    # that many due after so long a silence means that the clock leapt, or that nobody looked.
    silence = policy.gone_by or policy.keep_at_least or _SILENCE
    if something_goes and now - newest > silence:
        reason = f"nothing was received for {show_duration(now - newest)}: silence, or a clock leapt ahead"
        yield Brake(BrakeName.CLOCK_JUMP, reason)
    if around.storage_now is not None and abs(around.storage_now - now) > CLOCK_TOLERANCE:
        reason = f"now is {_at(now)}, yet the storage's clock says {_at(around.storage_now)}"
        yield Brake(BrakeName.CLOCK_JUMP, reason)


def _future_snapshots(outcomes: Sequence[GroupOutcome], now: datetime) -> Iterator[Brake]:
    for outcome in outcomes:
        newest = max(outcome.all, key=lambda snapshot: snapshot.time)
        if newest.time > now + CLOCK_TOLERANCE:
            reason = f"{outcome.group}: {newest.short_id} claims to be from {_at(newest.time)}"
            yield Brake(BrakeName.FUTURE_SNAPSHOT, reason, outcome.group)


def _edited_policy(policy: Retention, time_zone: str, known: str | None) -> Iterator[Brake]:
    present = policy_fingerprint(policy, time_zone)
    if known is not None and known != present:
        reason = f"the policy is not the one last applied: {present} instead of {known}"
        yield Brake(BrakeName.EDITED_POLICY, reason)


def _mass_deletions(outcome: GroupOutcome, policy: Retention) -> Iterator[Brake]:
    """By number, of all and of the good ones alone (garbage must not thin out the count), and by
    the time they span (a flood of good ones right now must not crowd out the history)."""
    kept = [snapshot for snapshot in outcome.good if snapshot.id not in outcome.going]
    counts = (
        ("snapshots", len(outcome.all), len(outcome.going)),
        ("good backups", len(outcome.good), len(outcome.good) - len(kept)),
    )
    for what, before, gone in counts:
        if gone > MASS_DELETION_MINIMUM and gone > policy.brake_fraction * before:
            reason = f"{outcome.group}: {gone} of {before} {what} would go at once"
            yield Brake(BrakeName.MASS_DELETION, reason, outcome.group)
            return
    span_before, span_after = _span(outcome.good), _span(kept)
    lost = span_before - span_after
    if len(outcome.going) > MASS_DELETION_MINIMUM and lost > policy.brake_fraction * span_before:
        shown = f"{show_duration(lost)} of {show_duration(span_before)}"
        reason = f"{outcome.group}: {shown} of its history would go at once"
        yield Brake(BrakeName.MASS_DELETION, reason, outcome.group)


def _floor(outcome: GroupOutcome, policy: Retention) -> Iterator[Brake]:
    floor = max(1, policy.floor)
    if outcome.going and len(outcome.good) < floor:
        reason = f"{outcome.group}: {len(outcome.good)} good backups, the floor is {floor}, and some would go"
        yield Brake(BrakeName.FLOOR, reason, outcome.group)


def _span(snapshots: Sequence[SnapshotFacts]) -> timedelta:
    return snapshots[0].received - snapshots[-1].received if snapshots else timedelta()


def _at(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M} UTC"
