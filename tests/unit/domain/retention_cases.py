"""Snapshots to judge, made short."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from drctl.domain.retention import Group, Judgement, SnapshotFacts

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
GROUP = Group("shop", "files", "web1")
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


def snapshot(
    id: str,
    received: datetime,
    *,
    time: datetime | None = None,
    group: Group = GROUP,
    complete: bool = True,
    verified: bool = True,
) -> SnapshotFacts:
    """A good one unless said otherwise; its recovery point an hour before its receipt."""
    return SnapshotFacts(id, group, time or received - HOUR, received, complete, verified)


def aged(id: str, age: timedelta) -> SnapshotFacts:
    return snapshot(id, NOW - age)


def nightly(nights: int) -> list[SnapshotFacts]:
    """One a night at noon UTC: `d0` is received now, `d30` is 30 days old."""
    return [aged(f"d{night}", night * DAY) for night in range(nights)]


def kept(judgement: Judgement) -> set[str]:
    return {verdict.snapshot.id for verdict in judgement.kept}


def going(judgement: Judgement) -> list[str]:
    return [verdict.snapshot.id for verdict in judgement.going]


def reasons(judgement: Judgement, id: str) -> tuple[str, ...]:
    return next(verdict.reasons for verdict in judgement.verdicts if verdict.snapshot.id == id)


def brakes(judgement: Judgement) -> list[str]:
    return [brake.name.value for brake in judgement.brakes]
