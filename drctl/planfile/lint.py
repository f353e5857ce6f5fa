"""Promises that cannot be kept: a policy whose own numbers contradict each other is refused.

Invariant: what passes can be met by a schedule that runs on time; gaps count the 25-hour day.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from drctl.domain.plan import DisasterClass, Objective, Policy, Schedule
from drctl.domain.retention_rules import policy_faults
from drctl.domain.schedule import worst_interval
from drctl.domain.units import show_duration
from drctl.planfile.errors import Position, Problems
from drctl.planfile.nodes import Node, Table

_WHY_OLDER = (
    "a moment is recovered from a full that is older than it, and purging takes time:"
    " raise gone_by, keep less, or make fulls more often"
)


def lint_policy(policy: Policy, text: Table, time_zone: str, problems: Problems) -> None:
    """Notes what the policy promises and cannot keep. `text` gives the positions."""
    schedule = policy.schedule
    if schedule.full is None and schedule.incremental is None:
        problems.add(_at(text, "schedule"), "nothing is scheduled", 'add full: "15 1 * * *"')
        return
    _lint_retention(policy, text, time_zone, problems)
    lint_objectives(policy.objectives, text.get("objectives"), schedule, time_zone, problems)


def lint_objectives(
    objectives: Mapping[DisasterClass, Objective],
    text: Node | None,
    schedule: Schedule,
    time_zone: str,
    problems: Problems,
) -> None:
    """Notes recovery points promised closer together than the schedule makes them."""
    apart = recovery_point_gap(schedule, time_zone)
    for disaster_class, objective in objectives.items():
        block = text.get(disaster_class.value) if isinstance(text, Table) else None
        if objective.rpo is not None and objective.rpo <= apart:
            problems.add(
                _at(block, "rpo"),
                f"an RPO of {show_duration(objective.rpo)} cannot be met: recovery points can be"
                f" {show_duration(apart)} apart, and a run takes time",
                f"back up more often, or promise more than {show_duration(apart)}",
            )
        if objective.rpo and objective.max_loss and objective.max_loss < objective.rpo:
            problems.add(_at(block, "max_loss"), "max_loss is less than the RPO", "the loss includes the RPO")


def full_interval(schedule: Schedule, time_zone: str) -> timedelta:
    """The longest time between two fulls; without any, between two incrementals."""
    cron = schedule.full or schedule.incremental
    return worst_interval(cron, time_zone) if cron else timedelta.max


def recovery_point_gap(schedule: Schedule, time_zone: str) -> timedelta:
    """The longest time between two recovery points of the closest stream the schedule has."""
    crons = [cron for cron in (schedule.full, schedule.incremental) if cron]
    gaps = [worst_interval(cron, time_zone) for cron in crons]
    return min([*gaps, schedule.continuous] if schedule.continuous else gaps)


def _lint_retention(policy: Policy, text: Table, time_zone: str, problems: Problems) -> None:
    kept, block = policy.retention, text.get("retention")
    counts = (kept.last, kept.hourly, kept.daily, kept.weekly, kept.monthly, kept.yearly)
    if kept.keep_at_least is None and kept.within is None and not any(counts):
        problems.add(_at(text, "retention"), "retention keeps nothing", "add keep_at_least: 30d")
    if kept.gone_by is None:
        return
    if kept.within is not None and kept.within > kept.gone_by:
        problems.add(_at(block, "within"), "within is more than gone_by", "nothing outlives gone_by")
    # the same rule that decides what may be deleted: what passes here is never refused there
    for fault in policy_faults(kept, full_interval(policy.schedule, time_zone)):
        problems.add(_at(block, "gone_by"), fault, _WHY_OLDER)


def _at(node: Node | None, key: str) -> Position:
    if isinstance(node, Table):
        value = node.get(key)
        return node.key_at(key) if value is None or isinstance(value, Table) else value.at
    return node.at if node is not None else Position("?")
