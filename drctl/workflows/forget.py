"""Forgetting the snapshots of a service that its policy lets go.

Invariant: nothing is forgotten but what was shown, judged anew from a fresh listing under an
exclusive lock (no backup and no restore is running then), with every brake released or overridden
by name. A run that stops midway leaves a set that restores, and the next run goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from drctl.domain.brakes import BrakeName, policy_fingerprint, still_engaged
from drctl.domain.events import Emit, Finished, Progressed, Started
from drctl.domain.plan import Retention
from drctl.domain.retention import Circumstances, Group, Hold, Judgement, SnapshotFacts, judge
from drctl.errors import CorruptError, RefusedError, StorageError
from drctl.ports import Clock
from drctl.repository.pack import BlobType
from drctl.repository.repo import FileKind, Repository
from drctl.repository.snapshot import Snapshot, fact_tag

_COOLING_OFF = timedelta(days=7)
_POLICY = "policy"


@dataclass(frozen=True, slots=True)
class ForgetRequest:
    """Which service, and by what. `groups`: what the plan promises, for the brake on what is missing."""

    service: str
    policy: Retention
    time_zone: str
    groups: Collection[Group] = ()


@dataclass(frozen=True, slots=True)
class ForgetPlan:
    """What retention came to, and the facts it was judged from."""

    request: ForgetRequest
    facts: tuple[SnapshotFacts, ...]
    judgement: Judgement


@dataclass(frozen=True, slots=True)
class ForgetReport:
    """What is gone from the repository's listing now; its bytes lie there until pruned."""

    forgotten: tuple[SnapshotFacts, ...]
    overridden: Mapping[BrakeName, str] = field(default_factory=dict)


def plan_forget(
    repository: Repository, request: ForgetRequest, now: datetime, storage_now: datetime | None = None
) -> ForgetPlan:
    """Judge the service's snapshots as they lie there; changes nothing and needs no lock."""
    repository.load_index()
    everything = repository.snapshots()
    own = [snapshot for snapshot in everything if snapshot.service == request.service]
    facts = tuple(_facts_of(snapshot, repository) for snapshot in own)
    around = Circumstances(
        known_fingerprint=_settled_fingerprint(own, now),
        storage_now=storage_now,
        newest_receipt=max((_received(snapshot) for snapshot in everything), default=None),
        expected=request.groups,
    )
    return ForgetPlan(request, facts, judge(facts, request.policy, now, request.time_zone, around))


def apply_forget(
    repository: Repository,
    planned: ForgetPlan,
    clock: Clock,
    emit: Emit,
    stop: Callable[[], None],
    overrides: Mapping[BrakeName, str] | None = None,
) -> ForgetReport:
    """Forget what `planned` shows. `overrides` maps a brake's name to somebody's reason; `stop` is
    called before each deletion and raises to interrupt. RefusedError when a brake is engaged or
    anything changed since; LockedError while a backup or a restore is running."""
    with repository.take_lock(clock, exclusive=True) as lock:
        lock.confirm()
        current = plan_forget(repository, planned.request, clock.now(), _storage_now(repository, clock))
        _refuse_changed(planned, current)
        refuse_braked(current.judgement, overrides or {})
        forgotten: list[SnapshotFacts] = []
        emit(Started("forgetting", total_files=len(planned.judgement.going)))
        # newest first: an aborted run leaves no child without its parent
        for verdict in planned.judgement.going:
            lock.check()
            stop()
            repository.remove(FileKind.SNAPSHOT, bytes.fromhex(verdict.snapshot.id))
            forgotten.append(verdict.snapshot)
            emit(Progressed(files=len(forgotten), bytes=0, current=verdict.snapshot.short_id))
        _prove_absence(repository, forgotten)
        emit(Finished("forgetting"))
    used = {brake.name: (overrides or {})[brake.name] for brake in current.judgement.brakes}
    return ForgetReport(tuple(forgotten), used)


def refuse_braked(judgement: Judgement, overrides: Mapping[BrakeName, str]) -> None:
    """RefusedError when a brake is engaged that no override names; the hint says how to."""
    engaged = still_engaged(judgement.brakes, overrides)
    if engaged:
        names = " ".join(dict.fromkeys(f"--override {brake.name.value}=REASON" for brake in engaged))
        raise RefusedError(
            "; ".join(f"{brake.name.value}: {brake.reason}" for brake in engaged),
            hint=f"nothing was deleted; if it is meant to be so: {names}",
        )


def policy_tag(policy: Retention, time_zone: str) -> str:
    """The tag by which a backup records the policy it is promised under."""
    return fact_tag(_POLICY, policy_fingerprint(policy, time_zone))


def _facts_of(snapshot: Snapshot, repository: Repository) -> SnapshotFacts:
    assert snapshot.id is not None, "a listed snapshot has an id"
    return SnapshotFacts(
        id=snapshot.id.hex(),
        group=Group(snapshot.service or "", snapshot.source or "", snapshot.hostname),
        time=snapshot.time,
        received=_received(snapshot),
        complete=snapshot.is_complete,
        # every blob was checked before it was stored; a record whose tree no index knows is a fake
        verified=repository.blobs.get(snapshot.tree, BlobType.TREE) is not None,
        held_by=_holds(snapshot),
        # its `parent` is what it was compared with: it restores without it
        parent=None,
    )


def _received(snapshot: Snapshot) -> datetime:
    try:
        return snapshot.received
    except CorruptError:  # a planted tag must not stop retention, nor make anything older
        return snapshot.stored_at or snapshot.time


def _holds(snapshot: Snapshot) -> tuple[Hold, ...]:
    try:
        return snapshot.holds
    except CorruptError as exc:  # somebody meant to hold it
        return (Hold(name="unreadable", reason=exc.message, owner="unknown"),)


def _settled_fingerprint(snapshots: Iterable[Snapshot], now: datetime) -> str | None:
    """The policy that was in force a cooling-off time ago, by what backups recorded then: an edit
    brakes until it is that old, not only until the next backup. None when none recorded any."""
    tagged = sorted(
        (_received(snapshot), fingerprint)
        for snapshot in snapshots
        if (fingerprint := snapshot.fact(_POLICY)) is not None
    )
    settled = [fingerprint for received, fingerprint in tagged if received <= now - _COOLING_OFF]
    first = [fingerprint for _, fingerprint in tagged[:1]]
    return next(reversed(settled or first), None)


def _storage_now(repository: Repository, clock: Clock) -> datetime | None:
    """The storage's clock, read off the lock that was just taken."""
    return max((record.stored_at for record in repository.lock_files(clock).read_all()), default=None)


def _refuse_changed(planned: ForgetPlan, current: ForgetPlan) -> None:
    still_going = {verdict.snapshot.id for verdict in current.judgement.going}
    kept_now = [
        verdict.snapshot for verdict in planned.judgement.going if verdict.snapshot.id not in still_going
    ]
    if set(planned.facts) != set(current.facts) or kept_now:
        what = f"{kept_now[0].short_id} is to be kept now" if kept_now else "its snapshots are others now"
        raise RefusedError(
            f"{planned.request.service}: {what}: they changed since the plan was made",
            hint="nothing was deleted; look at the plan again",
        )


def _prove_absence(repository: Repository, forgotten: Iterable[SnapshotFacts]) -> None:
    listed = {stored.id.hex() for stored in repository.files(FileKind.SNAPSHOT)}
    left = [facts.short_id for facts in forgotten if facts.id in listed]
    if left:
        raise StorageError(
            f"{repository.storage.location}: {len(left)} deleted snapshots are still listed: {left[0]}",
            hint="object lock or a second writer may keep them there",
        )
