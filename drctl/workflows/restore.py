"""Restoring a snapshot: which one, where to, and whether it came back as it was.

For the command line: build a `RestoreRequest`; `preview_restore` is the dry run (it writes nothing
and returns the plan), `run_restore` restores and, where asked to, verifies. Show the report, then
raise `report.error()` if it is not None: it carries the exit code.
Invariant: exit code 0 means that everything selected is in the target as the snapshot has it, or
that the difference was chosen (no owners, no privileges).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum

from drctl.domain.events import Emit, Noticed
from drctl.errors import CorruptError, DrctlError, ExitCode, UsageError, VerificationError
from drctl.ports import Clock
from drctl.repository.extract import (
    RestoreOptions,
    RestoreResult,
    apply_restore,
    plan_restore,
    verify_restore,
)
from drctl.repository.extract_plan import Failure, RestorePlan
from drctl.repository.ids import short
from drctl.repository.lock import HeldLock
from drctl.repository.repo import Repository
from drctl.repository.selection import Selection
from drctl.repository.snapshot import Snapshot, time_text


class Newest(Enum):
    """Stands for the newest complete snapshot."""

    LATEST = "latest"


Choice = Newest | str | datetime  # latest | the beginning of an id | the newest at or before then


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """What is to be restored where. `choice`: `Newest.LATEST`, the beginning of a snapshot's id, or
    an aware instant: the newest complete snapshot at or before it. `service` and `source_name`
    narrow the choice; None: any. `take_lock`: False only for storage that cannot be written."""

    target: str
    choice: Choice = Newest.LATEST
    service: str | None = None
    source_name: str | None = None
    selection: Selection = field(default_factory=Selection)
    options: RestoreOptions = field(default_factory=RestoreOptions)
    verify: bool = False
    take_lock: bool = True


@dataclass(frozen=True, slots=True)
class RestorePreview:
    """What a restore would do: the plan, with counts, deletions and what is already known to fail."""

    snapshot: Snapshot
    plan: RestorePlan


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What became of a restore. `failures` is all that is not as the snapshot has it; `verified` is
    None where nobody looked. `duration` is of the whole run, planning and verifying included."""

    snapshot: Snapshot
    target: str
    files: int
    directories: int
    others: int
    bytes: int
    bytes_written: int
    bytes_kept: int
    deleted: int
    strangers: int  # entries whose owner could not be given: not root
    failures: tuple[Failure, ...]
    verified: bool | None
    started: datetime
    duration: timedelta

    @property
    def exit_code(self) -> ExitCode:
        """OK only when the target equals what was selected of the snapshot."""
        error = self.error()
        return error.exit_code if error else ExitCode.OK

    def error(self) -> DrctlError | None:
        """The one line that says what is wrong, worst first; None when nothing is."""
        for kind, error_class in _ERRORS:
            found = [failure for failure in self.failures if failure.exit_code is kind]
            if found:
                more = f" (and {len(self.failures) - 1} more)" if len(self.failures) > 1 else ""
                return error_class(f"restore is not complete: {found[0].describe()}{more}", hint=_HINTS[kind])
        if self.strangers:
            return IncompleteRestoreError(
                f"restore is not complete: {self.strangers} entries have another owner than in the snapshot",
                hint="run as root, or decline owners with --no-owner",
            )
        return None


class IncompleteRestoreError(DrctlError):
    """Something could not be restored; the report lists it."""

    exit_code = ExitCode.INCOMPLETE


_ERRORS: tuple[tuple[ExitCode, type[DrctlError]], ...] = (
    (ExitCode.CORRUPT, CorruptError),
    (ExitCode.VERIFICATION_FAILED, VerificationError),
    (ExitCode.INCOMPLETE, IncompleteRestoreError),
)
_HINTS = {
    ExitCode.CORRUPT: "run: drctl repo check; a copy in another repository may have it",
    ExitCode.VERIFICATION_FAILED: "this machine's disk or memory may be at fault, or somebody wrote there",
    ExitCode.INCOMPLETE: "all that could not be restored is listed",
}


def preview_restore(
    repository: Repository, request: RestoreRequest, clock: Clock, emit: Emit
) -> RestorePreview:
    """The dry run. Errors as of `run_restore`, but for those of writing."""
    with _locked(repository, request, clock), _target_errors_told(request):
        snapshot = choose_snapshot(repository, request, emit)
        return RestorePreview(snapshot, _plan(repository, request, snapshot, emit))


def run_restore(
    repository: Repository, request: RestoreRequest, clock: Clock, emit: Emit, stop: Callable[[], None]
) -> RestoreReport:
    """Restore under a shared lock. `stop` is called often and raises to interrupt. Errors: UsageError
    (no such snapshot or path), RefusedError (the target is not empty), LockedError, CorruptError
    (the snapshot itself), DrctlError (the target takes no more); single files are in the report."""
    started, begun = clock.now(), clock.monotonic()
    with _locked(repository, request, clock) as lock, _target_errors_told(request):
        snapshot = choose_snapshot(repository, request, emit)
        plan = _plan(repository, request, snapshot, emit)
        lock.confirm(keep_fresh=False)  # the workers are forked first

        def check() -> None:
            lock.check()
            stop()

        check()
        target = os.fsencode(request.target)
        result = apply_restore(repository, plan, target, request.options, emit, check, lock.keep_fresh)
        wrong: tuple[Failure, ...] = ()
        if request.verify:
            seen = verify_restore(repository, plan, target, request.options, emit, check)
            wrong = _news(seen, result.failures)
        duration = timedelta(seconds=clock.monotonic() - begun)
        return _report(request, plan, result, wrong, started, duration)


def choose_snapshot(repository: Repository, request: RestoreRequest, emit: Emit) -> Snapshot:
    """The snapshot that is meant; UsageError where there is none. One that is named is taken as it
    is; otherwise a partial one never wins over a complete one, and is told of."""
    if isinstance(request.choice, str):
        return _warned(repository.find_snapshot(request.choice), emit)
    ours = [snapshot for snapshot in repository.snapshots() if _is_asked_for(snapshot, request)]
    if isinstance(request.choice, datetime):
        ours = [snapshot for snapshot in ours if snapshot.time <= request.choice]
    if not ours:
        raise UsageError(f"no snapshot{_of_what(request)}", hint="drctl backup list shows them")
    _refuse_a_guess(ours)
    complete = [snapshot for snapshot in ours if snapshot.is_complete]
    newest = max(complete or ours, key=lambda snapshot: snapshot.time)
    newer = sum(snapshot.time > newest.time for snapshot in ours)
    if newer:
        emit(
            Noticed(
                f"{newer} newer snapshots are partial and were passed over for {time_text(newest.time)}",
                hint="to restore one of them, give its id",
            )
        )
    return _warned(newest, emit)


def _refuse_a_guess(snapshots: list[Snapshot]) -> None:
    """The newest of several sources is whichever happened to run last: not what anybody means."""
    sources = sorted(
        {f"{one.service or one.hostname}/{one.source or ' '.join(one.paths)}" for one in snapshots}
    )
    if len(sources) > 1:
        raise UsageError(
            f"the newest snapshot of which? there are {', '.join(sources)}",
            hint="name one with --service and --source, or give the beginning of a snapshot's id",
        )


def _warned(snapshot: Snapshot, emit: Emit) -> Snapshot:
    if not snapshot.is_complete:
        name = short(snapshot.id) if snapshot.id else "?"
        emit(Noticed(f"snapshot {name} is partial: some of its source could not be read"))
    return snapshot


def _is_asked_for(snapshot: Snapshot, request: RestoreRequest) -> bool:
    return request.service in (None, snapshot.service) and request.source_name in (None, snapshot.source)


def _of_what(request: RestoreRequest) -> str:
    parts = [
        f" of service {request.service!r}" if request.service else "",
        f" of source {request.source_name!r}" if request.source_name else "",
        f" at or before {time_text(request.choice)}" if isinstance(request.choice, datetime) else "",
    ]
    return "".join(parts)


def _plan(repository: Repository, request: RestoreRequest, snapshot: Snapshot, emit: Emit) -> RestorePlan:
    repository.load_index()
    target = os.fsencode(request.target)
    return plan_restore(repository, snapshot, request.selection, target, request.options, emit)


def _report(
    request: RestoreRequest,
    plan: RestorePlan,
    result: RestoreResult,
    wrong: tuple[Failure, ...],
    started: datetime,
    duration: timedelta,
) -> RestoreReport:
    return RestoreReport(
        snapshot=plan.snapshot,
        target=request.target,
        files=plan.files,
        directories=plan.directories,
        others=plan.others,
        bytes=plan.bytes,
        bytes_written=result.bytes_written,
        bytes_kept=plan.bytes_kept,
        deleted=result.deleted,
        strangers=result.strangers,
        failures=result.failures + wrong,
        verified=not (wrong or result.failures) if request.verify else None,
        started=started,
        duration=duration,
    )


def _news(seen: tuple[Failure, ...], told: tuple[Failure, ...]) -> tuple[Failure, ...]:
    """What verifying found, without what is known not to be restored, and what would lie below it."""
    known = {failure.path for failure in told}

    def is_known(path: bytes) -> bool:
        while path and path not in known:
            path = os.path.dirname(path)
        return bool(path)

    return tuple(failure for failure in seen if not is_known(failure.path))


@contextmanager
def _target_errors_told(request: RestoreRequest) -> Iterator[None]:
    """What the system says outside of single files, whose errors are in the report, is about the target:
    storages translate their own."""
    try:
        yield
    except OSError as exc:
        reason = (exc.strerror or str(exc)).lower()
        raise DrctlError(
            f"cannot restore into {request.target!r}: {reason}",
            hint="what was restored stays; mend the target's disk, then go on with --delta",
        ) from exc


class _NoLock:
    """For storage that takes no lock."""

    def confirm(self, *, keep_fresh: bool = True) -> None: ...

    def keep_fresh(self) -> None: ...

    def check(self) -> None: ...


@contextmanager
def _locked(repository: Repository, request: RestoreRequest, clock: Clock) -> Iterator[HeldLock | _NoLock]:
    if not request.take_lock:
        yield _NoLock()
        return
    with repository.take_lock(clock) as lock:
        yield lock
