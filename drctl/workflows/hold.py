"""Holding a snapshot, so that retention never lets it go, and releasing it.

Invariant: a snapshot's record is rewritten, never altered: the new record is stored and read back
before the old one goes, and keeps the time of the FIRST receipt, so that a hold neither ages a
snapshot nor makes it young. Whoever was interrupted in between runs the same command again.
"""

from __future__ import annotations

from dataclasses import replace

from drctl.domain.snapshot_facts import Hold
from drctl.errors import CorruptError, UsageError
from drctl.ports import Clock
from drctl.repository.repo import FileKind, Repository
from drctl.repository.snapshot import Snapshot, decode_snapshot, time_text


def hold(repository: Repository, prefix: str, held: Hold, clock: Clock) -> Snapshot:
    """Put a hold on the snapshot whose id begins with `prefix`; returns it under its new id. The
    same hold put twice changes nothing. UsageError for a hold of that name with other words, or
    one that is over already."""
    if not (held.name.strip() and held.reason.strip() and held.owner.strip()):
        raise UsageError("a hold needs a name, a reason and an owner")
    if not held.holds_at(clock.now()):
        raise UsageError(f"hold {held.name!r} is over already", hint="give an expiry that is still to come")

    def added(holds: tuple[Hold, ...]) -> tuple[Hold, ...]:
        for other in holds:
            if other.name == held.name and other != held:
                raise UsageError(
                    f"{other}", hint=f"release {held.name!r} first, or give the new one another name"
                )
        return holds if held in holds else (*holds, held)

    with repository.take_lock(clock) as lock:
        lock.confirm()
        before = _find(repository, prefix)
        return _rewrite(repository, before, added(before.holds))


def release(repository: Repository, prefix: str, name: str, clock: Clock) -> Snapshot:
    """Take the hold of that name off; returns the snapshot under its new id. UsageError when there
    is no such hold on it."""
    with repository.take_lock(clock) as lock:
        lock.confirm()
        before = _find(repository, prefix)
        kept = tuple(other for other in before.holds if other.name != name)
        if len(kept) == len(before.holds):
            names = ", ".join(other.name for other in before.holds) or "none"
            raise UsageError(f"no hold {name!r} on snapshot {prefix!r}", hint=f"holds on it: {names}")
        return _rewrite(repository, before, kept)


def _find(repository: Repository, prefix: str) -> Snapshot:
    """By its id, or by the id it had before it was first rewritten, as people noted it down."""
    wanted = prefix.lower()
    renamed = [
        snapshot
        for snapshot in repository.snapshots()
        if snapshot.original is not None and snapshot.original.hex().startswith(wanted)
    ]
    try:
        return repository.find_snapshot(prefix)
    except UsageError:
        if len(renamed) != 1 or not wanted:
            raise
        return renamed[0]


def _rewrite(repository: Repository, before: Snapshot, holds: tuple[Hold, ...]) -> Snapshot:
    if holds == before.holds or before.id is None:
        return before
    with_holds = before.with_facts(received=time_text(before.received)).with_holds(holds)
    after = replace(with_holds, original=before.original or before.id, id=None, stored_at=None)
    # an interrupted run may have stored it already (comparison leaves id and receipt out)
    left = (snapshot for snapshot in repository.snapshots() if snapshot == after)
    stored = next(left, None) or repository.save_snapshot(after)
    _read_back(repository, stored, before)
    repository.remove(FileKind.SNAPSHOT, before.id)
    return stored


def _read_back(repository: Repository, stored: Snapshot, before: Snapshot) -> None:
    assert stored.id is not None, "save_snapshot gives an id"
    name = FileKind.SNAPSHOT.key(stored.id)
    if decode_snapshot(repository.load_json(FileKind.SNAPSHOT, stored.id), name) != stored:
        raise CorruptError(f"{name}: does not read back as written", hint="the old record was left in place")
    if stored.received > before.received:
        raise CorruptError(f"{name}: lost its receipt time", hint="the old record was left in place")
