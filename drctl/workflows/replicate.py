"""Copying snapshots from one repository into another: the second copy on another site.

Invariant: both repositories are locked while it runs, the target is only added to, and a run that
failed or was killed is simply repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from drctl.domain.events import Emit, Finished, Noticed, Started
from drctl.domain.plan import Chunker
from drctl.errors import ExitCode, UsageError
from drctl.ports import Clock
from drctl.repository.copy import CopiedSnapshot, Copier, CopyVerdict, plan_copy, start_copy
from drctl.repository.crew import Crew
from drctl.repository.repo import Repository
from drctl.repository.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What was decided and what was done. Bytes are as stored in the target."""

    verdicts: tuple[CopyVerdict, ...]
    copied: tuple[CopiedSnapshot, ...]
    blobs: int
    bytes: int

    @property
    def exit_code(self) -> ExitCode:
        """CORRUPT when a snapshot could not be copied because the source is damaged."""
        damaged = any(outcome.problem for outcome in self.copied)
        return ExitCode.CORRUPT if damaged else ExitCode.OK


def run_copy(
    source: Repository,
    target: Repository,
    wanted: Sequence[Snapshot] | None,
    clock: Clock,
    emit: Emit,
    *,
    stop: Callable[[], None] = lambda: None,
    lock_source: bool = True,
) -> CopyReport:
    """Copy the `wanted` snapshots (None: all) that the target lacks, oldest first. `stop` is called
    often and raises to interrupt. `lock_source=False` is for a source that may only be read: nothing
    must prune it meanwhile. UsageError for one and the same repository, LockedError, or what a
    storage says; damage in the source skips a snapshot and is in the report."""
    if source.storage.location == target.storage.location:
        raise UsageError(f"{source.storage.location} cannot be copied into itself")
    with ExitStack() as held:
        locks = [
            held.enter_context(repository.take_lock(clock))
            for repository in _to_lock(source, target, lock_source)
        ]
        for lock in locks:
            lock.confirm(keep_fresh=False)  # the workers are forked first

        def keep_fresh() -> None:
            for lock in locks:
                lock.keep_fresh()

        def check() -> None:
            for lock in locks:
                lock.check()
            stop()

        verdicts = plan_copy(source.snapshots() if wanted is None else wanted, target.snapshots())
        missing = [verdict.snapshot for verdict in verdicts if verdict.is_missing]
        if not missing:
            return CopyReport(tuple(verdicts), (), 0, 0)
        _warn_of_other_cutting(source, target, missing, emit)
        emit(Started("copy", len(missing)))
        walk = start_copy(source, source.load_index(), target)
        with Crew(walk, forked=keep_fresh) as crew:
            copier = Copier(walk, crew, clock, check, emit)
            copied = tuple(copier.copy(missing))
        emit(Finished("copy"))
        return CopyReport(tuple(verdicts), copied, copier.blobs, copier.bytes)


def _to_lock(source: Repository, target: Repository, lock_source: bool) -> list[Repository]:
    return [source, target] if lock_source else [target]


def _warn_of_other_cutting(
    source: Repository, target: Repository, missing: list[Snapshot], emit: Emit
) -> None:
    # fastcdc cuts alike everywhere; whatever else made a snapshot cut by the repository's polynomial
    by_polynomial = any(snapshot.fact("chunker") != Chunker.FASTCDC.value for snapshot in missing)
    if by_polynomial and source.config.chunker_polynomial != target.config.chunker_polynomial:
        emit(
            Noticed(
                "the two repositories cut large files differently (their chunker polynomials differ)",
                hint="fine for copies alone; files over 512 KiB that are also backed up into the target"
                " are stored twice there; one made by restic init --copy-chunker-params avoids that",
            )
        )
