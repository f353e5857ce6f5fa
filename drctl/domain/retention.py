"""Retention: which snapshots stay, which go, why, and since when they were due.

Invariant: nothing goes that is younger than `keep_at_least`, held, in use, needed by a kept child
or among the last good ones; and judging what was kept keeps all of it.

Ages count from now, in elapsed seconds, from OUR receipt: no client's clock decides, and a silent
host keeps nothing for ever by being silent. Only good snapshots (complete, verified, not running,
not dated ahead, their chain whole) satisfy rules and push others out. Exceptions (last good, hold,
in use, parent) beat `gone_by`; `gone_by` beats the rules; `keep_at_least` adds to them. Without
any rule, what is not due by `gone_by` stays; without any bound either, everything stays.

A snapshot that is not good counts for nothing and is dropped once a newer good one exists, after
`keep_at_least` and a day's grace; without a newer good one it waits for `gone_by`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby
from zoneinfo import ZoneInfo

from drctl.domain.brakes import CLOCK_TOLERANCE, Brake, Circumstances, GroupOutcome, engaged
from drctl.domain.calendar_buckets import zone_named
from drctl.domain.plan import Retention
from drctl.domain.retention_rules import Claim, claims_of, has_rules, policy_faults
from drctl.domain.snapshot_facts import Group, Hold, SnapshotFacts, utc
from drctl.domain.units import show_duration
from drctl.errors import UsageError

__all__ = ["Circumstances", "Group", "Hold", "Judgement", "SnapshotFacts", "Verdict", "judge"]

_GRACE = timedelta(days=1)  # a failed run may be looked into, or continued by a rerun, for as long
_NO_TIME = timedelta()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Kept or not, and why. `due_since` is also set on what an exception alone keeps (a hold, the
    last good one): it is overdue, and the reasons say what keeps it."""

    snapshot: SnapshotFacts
    keep: bool
    reasons: tuple[str, ...]
    due_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """All verdicts, by group and newest first, and what forbids acting on them."""

    verdicts: tuple[Verdict, ...]
    brakes: tuple[Brake, ...]

    @property
    def kept(self) -> tuple[Verdict, ...]:
        return tuple(verdict for verdict in self.verdicts if verdict.keep)

    @property
    def going(self) -> tuple[Verdict, ...]:
        """What is to be forgotten, in the order to do it: newest first, so that a child goes before
        its parent and an aborted run leaves no snapshot that cannot be restored."""
        due = [verdict for verdict in self.verdicts if not verdict.keep]
        return tuple(sorted(due, key=lambda verdict: _age_order(verdict.snapshot), reverse=True))


def judge(
    snapshots: Iterable[SnapshotFacts],
    policy: Retention,
    now: datetime,
    time_zone: str,
    around: Circumstances | None = None,
) -> Judgement:
    """Judge all snapshots that one policy governs, each group for itself.

    `time_zone` is the IANA name in which calendar buckets are cut and dates are shown. UsageError
    for a policy that contradicts itself; ValueError for an instant without a zone, or two
    snapshots of one id."""
    faults = policy_faults(policy)
    if faults:
        raise UsageError(f"retention: {faults[0]}", hint="nothing is deleted by a policy that cannot be kept")
    bench = _Bench(policy, utc(now), zone_named(time_zone), _by_id(snapshots))
    outcomes: list[GroupOutcome] = []
    verdicts: list[Verdict] = []
    for group, members in groupby(sorted(bench.facts.values(), key=_group_order), lambda one: one.group):
        newest_first = sorted(members, key=_age_order, reverse=True)
        good = [one for one in newest_first if bench.shortfall(one) is None]
        verdicts.extend(bench.verdicts(newest_first, good))
        outcomes.append(GroupOutcome(group, newest_first, good, ()))
    verdicts = bench.spare_parents(verdicts)
    going = frozenset(verdict.snapshot.id for verdict in verdicts if not verdict.keep)
    outcomes = [replace(outcome, going=going & {one.id for one in outcome.all}) for outcome in outcomes]
    brakes = engaged(outcomes, policy, time_zone, bench.now, around or Circumstances())
    return Judgement(tuple(verdicts), brakes)


@dataclass(frozen=True, slots=True)
class _Bench:
    """What every verdict of one judgement is given by."""

    policy: Retention
    now: datetime
    zone: ZoneInfo
    facts: Mapping[str, SnapshotFacts]

    def shortfall(self, snapshot: SnapshotFacts) -> str | None:
        """Why a snapshot is not good and counts for nothing; None when it is good."""
        if snapshot.running:
            return "running"
        if not snapshot.complete:
            return "incomplete"
        if not snapshot.verified:
            return "not verified"
        if self._is_ahead(snapshot):
            return "dated in the future"
        return self._broken_chain(snapshot)

    def verdicts(
        self, newest_first: Sequence[SnapshotFacts], good: Sequence[SnapshotFacts]
    ) -> Iterator[Verdict]:
        """Of one group, its parents not yet spared."""
        claims = claims_of(good, self.policy, self.now, self.zone)
        last_ones = self._last_ones(newest_first, good)
        next_newer_good: SnapshotFacts | None = None
        for snapshot in newest_first:
            exceptions = (*last_ones.get(snapshot.id, ()), *self._protections(snapshot))
            shortfall = self.shortfall(snapshot)
            if shortfall is None:
                yield self._verdict(snapshot, exceptions, claims[snapshot.id], "no rule keeps it")
                next_newer_good = snapshot
            else:
                claim = self._claim_on_useless(snapshot, shortfall, next_newer_good)
                yield self._verdict(snapshot, exceptions, [claim], claim.reason)

    def spare_parents(self, verdicts: Sequence[Verdict]) -> list[Verdict]:
        """Keep what a kept snapshot cannot be restored without, up the whole chain."""
        children: dict[str, str] = {}
        for verdict in verdicts:
            parent = verdict.snapshot.parent if verdict.keep else None
            # where the chain was walked before (or goes in a circle) the rest of it was too
            while parent is not None and parent in self.facts and parent not in children:
                children[parent] = verdict.snapshot.short_id
                parent = self.facts[parent].parent
        return [
            replace(verdict, keep=True, reasons=(f"parent of kept {child}", *verdict.reasons))
            if (child := children.get(verdict.snapshot.id))
            else verdict
            for verdict in verdicts
        ]

    def _verdict(
        self, snapshot: SnapshotFacts, exceptions: tuple[str, ...], claims: Sequence[Claim], lapse: str
    ) -> Verdict:
        keepers = (*self._youth(snapshot), *(claim.reason for claim in claims if claim.ended is None))
        ends = [claim.ended for claim in claims if claim.ended is not None]
        dues = [self._gone_by(snapshot)] if self.policy.gone_by is not None else []
        if not keepers:
            # receipts may lead now by the tolerance; what displaced it then does so now
            dues.append((min(self.now, max(snapshot.received + self._at_least, *ends)), lapse))
        past = [due for due in dues if due[0] <= self.now]
        if not past:
            return Verdict(snapshot, keep=True, reasons=(*exceptions, *keepers))
        since, why = min(past)
        shown = f"due since {since.astimezone(self.zone):%Y-%m-%d}: {why}"
        return Verdict(snapshot, keep=bool(exceptions), reasons=(*exceptions, shown), due_since=since)

    def _gone_by(self, snapshot: SnapshotFacts) -> tuple[datetime, str]:
        """Purging takes time too: it must be forgotten `purge_lag` before it must be gone."""
        gone_by = self.policy.gone_by or _NO_TIME
        return snapshot.received + gone_by - self.policy.purge_lag, f"gone by {show_duration(gone_by)}"

    @property
    def _at_least(self) -> timedelta:
        return self.policy.keep_at_least or _NO_TIME

    def _youth(self, snapshot: SnapshotFacts) -> Iterator[str]:
        if self._at_least and snapshot.received + self._at_least > self.now:
            yield f"kept at least {show_duration(self._at_least)}"

    def _protections(self, snapshot: SnapshotFacts) -> Iterator[str]:
        yield from (str(hold) for hold in snapshot.held_by if hold.holds_at(self.now))
        if snapshot.running:
            yield "running"
        if snapshot.being_restored:
            yield "being restored"

    def _last_ones(
        self, newest_first: Sequence[SnapshotFacts], good: Sequence[SnapshotFacts]
    ) -> Mapping[str, tuple[str]]:
        """The floor. Where nothing is good, the best of what there is stands in for it."""
        floor = max(1, self.policy.floor)
        if not good:
            best_first = sorted(newest_first, key=self._rank, reverse=True)
            return {one.id: ("no good backup: the best there is",) for one in best_first[:floor]}
        others = {one.id: (f"one of the last {floor} good backups",) for one in good[1:floor]}
        return {good[0].id: ("last good backup",), **others}

    def _rank(self, snapshot: SnapshotFacts) -> tuple[bool, bool, bool]:
        return not self._is_ahead(snapshot), snapshot.complete, snapshot.verified

    def _is_ahead(self, snapshot: SnapshotFacts) -> bool:
        return max(snapshot.time, snapshot.received) > self.now + CLOCK_TOLERANCE

    def _claim_on_useless(
        self, snapshot: SnapshotFacts, shortfall: str, next_newer_good: SnapshotFacts | None
    ) -> Claim:
        if not has_rules(self.policy):
            return Claim(f"{shortfall}; no rule is set", None)
        if self._is_ahead(snapshot):
            return Claim(
                f"{shortfall}: not judged before {max(snapshot.time, snapshot.received):%Y-%m-%d}", None
            )
        if next_newer_good is None:
            return Claim(f"{shortfall}, but no newer backup is good", None)
        end = max(snapshot.received + _GRACE, next_newer_good.received)
        if end > self.now:
            return Claim(f"{shortfall}: kept {show_duration(_GRACE)}", None)
        return Claim(f"{shortfall}, and a newer backup is good", end)

    def _broken_chain(self, snapshot: SnapshotFacts) -> str | None:
        seen = {snapshot.id}
        parent = snapshot.parent
        while parent is not None:
            ancestor = self.facts.get(parent)
            if ancestor is None or parent in seen or not (ancestor.complete and ancestor.verified):
                return f"its parent {parent[:8]} is missing or not good"
            seen.add(parent)
            parent = ancestor.parent
        return None


def _by_id(snapshots: Iterable[SnapshotFacts]) -> dict[str, SnapshotFacts]:
    facts: dict[str, SnapshotFacts] = {}
    for snapshot in snapshots:
        if snapshot.id in facts:
            raise ValueError(f"two snapshots of one id: {snapshot.id}")
        facts[snapshot.id] = snapshot
    return facts


def _group_order(snapshot: SnapshotFacts) -> Group:
    return snapshot.group


def _age_order(snapshot: SnapshotFacts) -> tuple[datetime, str]:
    # our receipt time, never the client's clock; a tie falls the same way each time
    return snapshot.received, snapshot.id
