"""Checking a repository under a shared lock.

Invariant: nothing but the lock is written; without one, nothing at all.
"""

from __future__ import annotations

from contextlib import nullcontext

from drctl.domain.events import Emit
from drctl.ports import Clock
from drctl.repository.check import CheckReport, check_repository
from drctl.repository.repo import Repository
from drctl.repository.sample import Sample


def run_check(
    repository: Repository,
    sample: Sample | None,
    seed: int,
    clock: Clock,
    emit: Emit,
    *,
    lock: bool = True,
) -> CheckReport:
    """Check structure and, of a `sample`, content. Findings are emitted as `Noticed` as they are
    found, and are all in the report. `lock=False` is for read-only credentials: a prune that runs
    meanwhile may then cause false alarms. LockedError, UnreachableError."""
    with repository.take_lock(clock) if lock else nullcontext() as held:
        if held is None:
            return check_repository(repository, sample, seed, emit)
        held.confirm(keep_fresh=False)  # the workers are forked first
        return check_repository(repository, sample, seed, emit, forked=held.keep_fresh)
