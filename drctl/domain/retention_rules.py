"""Retention rules: which good snapshots each rule keeps, and from when on it no longer does.

Invariant: rules see good snapshots only, newest receipt first; a rule looks at nothing but them,
the policy, now and the zone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from drctl.domain.calendar_buckets import PERIODS
from drctl.domain.plan import Retention
from drctl.domain.snapshot_facts import SnapshotFacts
from drctl.domain.units import show_duration

_COUNTS = ("last", *PERIODS)


@dataclass(frozen=True, slots=True)
class Claim:
    """Why a rule keeps a snapshot, and the instant at which it stopped to; None: it keeps it."""

    reason: str
    ended: datetime | None


def claims_of(
    good: Sequence[SnapshotFacts], policy: Retention, now: datetime, zone: ZoneInfo
) -> Mapping[str, Sequence[Claim]]:
    """For each good snapshot's id every claim that a rule of the policy has or had on it."""
    claims: defaultdict[str, list[Claim]] = defaultdict(list)
    for snapshot, claim in _all_claims(good, policy, now, zone):
        claims[snapshot.id].append(claim)
    return claims


def has_rules(policy: Retention) -> bool:
    """Whether any rule is set; the two bounds are not rules."""
    return policy.within is not None or any(getattr(policy, name) for name in _COUNTS)


def policy_faults(policy: Retention, full_interval: timedelta = timedelta()) -> tuple[str, ...]:
    """Why a policy cannot be kept; empty when it can. `full_interval` is the longest time between
    two fulls (`domain.schedule.worst_interval`): an instant 30 days ago is restored from a full
    that is OLDER than 30 days, and forgetting it is not yet purging it."""
    faults = [f"{name} is negative: {getattr(policy, name)}" for name in _COUNTS if getattr(policy, name) < 0]
    for name in ("keep_at_least", "gone_by", "within", "purge_lag"):
        duration = getattr(policy, name)
        if duration is not None and duration < timedelta():
            faults.append(f"{name} is negative: {duration.total_seconds():.0f} s")
    if not 0 < policy.brake_fraction <= 1:
        faults.append(f"brake_fraction is not above 0 and up to 1: {policy.brake_fraction}")
    if policy.floor < 0:
        faults.append(f"floor is negative: {policy.floor}")
    if policy.gone_by is not None and not faults:
        faults.extend(_bounds_faults(policy, policy.gone_by, full_interval))
    return tuple(faults)


def _bounds_faults(policy: Retention, gone_by: timedelta, full_interval: timedelta) -> Iterator[str]:
    keep_at_least = policy.keep_at_least or timedelta()
    needed = keep_at_least + full_interval + policy.purge_lag
    if gone_by < needed:
        yield (
            f"gone_by {show_duration(gone_by)} is less than keep_at_least {show_duration(keep_at_least)}"
            f" + full interval {show_duration(full_interval)} + purge_lag {show_duration(policy.purge_lag)}"
            f" = {show_duration(needed)}"
        )
    elif gone_by <= policy.purge_lag:
        lag = show_duration(policy.purge_lag)
        yield f"gone_by {show_duration(gone_by)} leaves no time beside purge_lag {lag}"


def _all_claims(
    good: Sequence[SnapshotFacts], policy: Retention, now: datetime, zone: ZoneInfo
) -> Iterator[tuple[SnapshotFacts, Claim]]:
    if not has_rules(policy):
        until = (
            "everything is kept"
            if policy.gone_by is None
            else f"kept until gone by {show_duration(policy.gone_by)}"
        )
        yield from ((snapshot, Claim(f"no rule is set: {until}", None)) for snapshot in good)
        return
    yield from _last(good, policy.last)
    for period in PERIODS:
        yield from _period(good, period, getattr(policy, period), zone)
    if policy.within is not None:
        yield from _within(good, policy.within, now)
    if policy.keep_at_least:
        yield from _in_force(good, policy.keep_at_least, now)


def _last(good: Sequence[SnapshotFacts], count: int) -> Iterator[tuple[SnapshotFacts, Claim]]:
    for place, snapshot in enumerate(good if count else ()):
        ended = None if place < count else good[place - count].received
        yield snapshot, Claim(f"last {count}", ended)


def _period(
    good: Sequence[SnapshotFacts], period: str, count: int, zone: ZoneInfo
) -> Iterator[tuple[SnapshotFacts, Claim]]:
    """The newest of each bucket, for as many buckets that hold any: a gap uses none up."""
    places: dict[str, int] = {}
    oldest: list[datetime] = []  # of each bucket so far; the newest bucket first
    for snapshot in good if count else ():
        bucket = PERIODS[period](snapshot.received.astimezone(zone))
        place = places.setdefault(bucket, len(places))
        ends = oldest[place : place + 1]  # the next newer one in its own bucket took its place
        oldest[place : place + 1] = [snapshot.received]
        if place >= count:
            ends.append(oldest[place - count])
        yield snapshot, Claim(f"{period} {bucket}", min(ends, default=None))


def _within(
    good: Sequence[SnapshotFacts], within: timedelta, now: datetime
) -> Iterator[tuple[SnapshotFacts, Claim]]:
    for snapshot in good:
        end = snapshot.received + within
        yield snapshot, Claim(f"within {show_duration(within)} of now", end if end <= now else None)


def _in_force(
    good: Sequence[SnapshotFacts], keep_at_least: timedelta, now: datetime
) -> Iterator[tuple[SnapshotFacts, Claim]]:
    """What an instant `keep_at_least` ago is restored from: the newest that old."""
    old = [snapshot for snapshot in good if snapshot.received + keep_at_least <= now]
    for place, snapshot in enumerate(old):
        ended = None if place == 0 else old[place - 1].received + keep_at_least
        yield snapshot, Claim(f"in force {show_duration(keep_at_least)} ago", ended)
