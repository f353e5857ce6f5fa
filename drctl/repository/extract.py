"""Restoring: `plan_restore` decides, `apply_restore` does, `verify_restore` looks again.

The order: what stands in the way is deleted (only where chosen), directories are made, closed to
others; content is written pack by pack in worker processes; then further hard links, files that
came from several packs, and last the directories' own metadata, deepest first.
Invariant: nothing outside the target is written (see `extract_target`), and an entry is either as
the snapshot has it or in the result's list of failures.
"""

from __future__ import annotations

import os
import stat
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice

from drctl.domain.events import Emit, Finished, Noticed, Progressed, Started, ignore
from drctl.repository.crew import Crew
from drctl.repository.extract_finish import Finisher
from drctl.repository.extract_metadata import MetadataRules
from drctl.repository.extract_plan import Failure, PlanBuilder, RestorePlan, finish_plan
from drctl.repository.extract_survey import survey
from drctl.repository.extract_target import Existing, Target
from drctl.repository.extract_task import EntriesTask, PackTask, ReuseTask, WriteContext, WriteTask, Written
from drctl.repository.extract_verify import VerifyContext, verify_task, verify_tasks
from drctl.repository.extract_write import write_task
from drctl.repository.node_table import KEPT, LINKED
from drctl.repository.repo import Repository
from drctl.repository.selection import Selection, Selector
from drctl.repository.snapshot import Snapshot

_ENTRIES_AT_ONCE = 1000
_POSIX_DEFAULT_ACL = "system.posix_acl_default"


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """How files are made. `sparse`: runs of zeros become holes. `owners`: False leaves files to
    whoever restores, by choice. `privileges`: False strips setuid, setgid and file capabilities and
    makes no device nodes (restore tests). `workers`: processes; None: one a processor."""

    existing: Existing = Existing.REFUSE
    delete: bool = False
    sparse: bool = False
    owners: bool = True
    privileges: bool = True
    workers: int | None = None


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """What was done. `strangers`: entries whose owner could not be given (not root)."""

    files: int = 0
    bytes_written: int = 0
    deleted: int = 0
    strangers: int = 0
    failures: tuple[Failure, ...] = ()


def plan_restore(
    repository: Repository,
    snapshot: Snapshot,
    selection: Selection,
    target: bytes,
    options: RestoreOptions = RestoreOptions(),
    emit: Emit = ignore,
) -> RestorePlan:
    """What restoring would do. Reads trees, and with `Existing.REUSE` or `delete` the target; writes
    nothing. RefusedError when the target is not empty and that was not allowed for; CorruptError
    when the snapshot's root is damaged, or nests or repeats itself without bound; UsageError when a
    path that was asked for is not there. Other damage is in the plan's failures."""
    emit(Started("planning the restore"))
    builder = PlanBuilder(repository, Selector(selection), options.workers)
    if options.existing is Existing.REFUSE:
        _refuse_used(target)
    builder.walk(snapshot)
    deletions = survey(repository, builder, target, options.existing, options.delete, options.workers)
    plan = finish_plan(repository, builder, snapshot, deletions)
    emit(Finished("planning the restore"))
    return plan


def apply_restore(
    repository: Repository,
    plan: RestorePlan,
    target: bytes,
    options: RestoreOptions = RestoreOptions(),
    emit: Emit = ignore,
    check: Callable[[], object] = lambda: None,
    forked: Callable[[], None] = lambda: None,
) -> RestoreResult:
    """Do what the plan says. `check` is called often, and raises to end the run; `forked` once the
    worker processes run: threads may be started from then on. DrctlError where nothing more can be
    written or a worker died; what was restored so far stays, and `Existing.REUSE` continues."""
    place = Target(target, options.existing)
    try:
        place.lay_out(plan.nodes)
        return _Restore(repository, plan, place, options, emit).run(check, forked)
    finally:
        place.close()


def verify_restore(
    repository: Repository,
    plan: RestorePlan,
    target: bytes,
    options: RestoreOptions = RestoreOptions(),
    emit: Emit = ignore,
    check: Callable[[], object] = lambda: None,
) -> tuple[Failure, ...]:
    """Read everything the plan restored again, from the disk where the system lets us, and compare
    it with the blobs' ids and the snapshot's metadata: what differs. Empty: all is as it was."""
    emit(Started("verifying", plan.entries, plan.bytes))
    place = Target(target, Existing.REUSE, create=False)
    try:
        place.lay_out(plan.nodes)
        rules = MetadataRules.of_process(owners=options.owners, privileges=options.privileges)
        context = VerifyContext(repository, plan.nodes, place, rules)
        context.flush()
        tasks = verify_tasks(plan.nodes)
        entries = size = 0
        wrong: list[Failure] = []
        with Crew(context, options.workers) as crew:
            for seen in crew.run(verify_task, lambda: next(tasks, None)):
                entries, size = entries + seen.entries, size + seen.size
                wrong += seen.wrong
                emit(Progressed(entries, size))
                check()
        emit(Finished("verifying"))
        return tuple(wrong)
    finally:
        place.close()


def _refuse_used(target: bytes) -> None:
    if os.path.lexists(target):
        Target(target, Existing.REFUSE, create=False).close()


class _Restore:
    """One application of a plan."""

    def __init__(
        self, repository: Repository, plan: RestorePlan, place: Target, options: RestoreOptions, emit: Emit
    ) -> None:
        self._plan = plan
        self._nodes = plan.nodes
        self._place = place
        self._options = options
        self._emit = emit
        rules = MetadataRules.of_process(owners=options.owners, privileges=options.privileges)
        plain = place.fresh and rules.privileges and _is_plain(place.root)
        self._context = WriteContext(
            repository, plan, place, rules, options.sparse, plain, os.urandom(4).hex().encode(), {}
        )
        self._finisher = Finisher(self._context)
        self._total = Written()

    def run(self, check: Callable[[], object], forked: Callable[[], None]) -> RestoreResult:
        """All phases in their order."""
        self._emit(Started("restoring", self._plan.files, self._plan.bytes - self._plan.bytes_kept))
        deleted = self._finisher.delete(self._plan.deletions)
        self._finisher.make_directories()
        try:
            self._finisher.stage()
            self._write(check, forked)
            check()
        except BaseException:
            self._finisher.withdraw_staged()
            raise
        self._finisher.complete(set(self._total.broken))
        self._emit(Finished("restoring"))
        failures = (*self._plan.failures, *self._total.failures, *self._finisher.failures)
        strangers = self._total.strangers + self._finisher.strangers
        if strangers:
            self._emit(
                Noticed(
                    f"the owner of {strangers} entries was not restored: only root can give files away",
                    hint="run as root, or decline owners with --no-owner",
                )
            )
        return RestoreResult(
            files=self._total.files + self._finisher.files,
            bytes_written=self._total.size,
            deleted=deleted,
            strangers=strangers if self._options.owners else 0,
            failures=_once_each(failures),
        )

    def _write(self, check: Callable[[], object], forked: Callable[[], None]) -> None:
        self._context.repository.storage.close()  # a connection must not be shared by two processes
        tasks = self._tasks()

        def next_task() -> WriteTask | None:
            return next(tasks, None)

        with Crew(self._context, self._options.workers, forked=forked) as crew:
            for done in crew.run(write_task, next_task):  # type: ignore[misc]  # mypy cannot join the union
                self._add(done)
                check()

    def _add(self, done: Written) -> None:
        total = self._total
        total.files += done.files
        total.size += done.size
        total.strangers += done.strangers
        total.failures += done.failures
        total.broken += done.broken
        self._emit(Progressed(total.files, total.size, os.fsdecode(done.current)))

    def _tasks(self) -> Iterator[WriteTask]:
        for number in self._context.staged:
            node = self._nodes[number]
            if any(self._nodes.piece_reused[node.first : node.first + node.pieces]):
                yield ReuseTask(number)
        for pack in self._plan.packs:
            yield PackTask(pack)
        flags = self._nodes.flags
        kept = (number for number, flag in enumerate(flags) if flag & KEPT and not flag & LINKED)
        contentless = (number for number in self._nodes.contentless if not flags[number] & (LINKED | KEPT))
        numbers = chain(contentless, kept if self._options.existing is Existing.REUSE else ())
        while batch := array("I", islice(numbers, _ENTRIES_AT_ONCE)):
            yield EntriesTask(batch)


def _is_plain(root: int) -> bool:
    """Whether new files below the directory get nothing from it but the process's own owner."""
    if os.fstat(root).st_mode & stat.S_ISGID:
        return False
    try:
        return _POSIX_DEFAULT_ACL not in os.listxattr(root)
    except OSError:
        return True  # no extended attributes, so no ACL


def _once_each(failures: tuple[Failure, ...]) -> tuple[Failure, ...]:
    seen: dict[tuple[bytes, str], Failure] = {}
    for failure in failures:
        seen.setdefault((failure.path, failure.message), failure)
    return tuple(seen.values())
