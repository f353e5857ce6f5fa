"""Pruning a repository: lock it for us alone, plan, have the plan approved, carry it out.

Invariant: the plan that is approved is the plan that is carried out, under one exclusive lock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from drctl.domain.events import Emit, Finished, Progressed, Started
from drctl.errors import LockedError
from drctl.ports import Clock
from drctl.repository.prune import PrunePlan, UnusedLimit, plan_prune
from drctl.repository.repack import PruneResult, apply_prune
from drctl.repository.repo import Repository
from drctl.repository.usage import survey_usage


@dataclass(frozen=True, slots=True)
class PruneReport:
    """The plan, and what was done; None when nothing was to be done or it was not approved."""

    plan: PrunePlan
    result: PruneResult | None


def run_prune(
    repository: Repository,
    limit: UnusedLimit,
    approve: Callable[[PrunePlan], bool],
    clock: Clock,
    emit: Emit,
    *,
    remove_everything: bool = False,
) -> PruneReport:
    """Plan and, when `approve` says so of the plan, prune (a dry run says no). `approve` may take its
    time: the lock is kept fresh. LockedError (somebody uses the repository), CorruptError (damage:
    nothing was deleted), RefusedError (no snapshot is left), or what the storage says."""
    with repository.take_lock(clock, exclusive=True) as lock:
        lock.confirm(keep_fresh=False)  # the processes that read the trees are forked first
        if lock.stored_at is None:
            raise LockedError("the lock on the repository was not confirmed")
        emit(Started("find unused data"))
        usage = survey_usage(
            repository,
            lock.stored_at,
            lambda trees: emit(Progressed(trees, 0, "trees")),
            lock.keep_fresh,
        )
        lock.keep_fresh()
        emit(Finished("find unused data"))
        plan = plan_prune(usage.facts, limit, remove_everything=remove_everything)
        if plan.is_empty or not approve(plan):
            return PruneReport(plan, None)
        lock.check()
        return PruneReport(plan, apply_prune(repository, plan, usage, lock, clock, emit))
