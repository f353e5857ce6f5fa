"""Removing locks that nobody holds any more.

Invariant: a lock is stale by the storage's own clock, learnt from a file written just now, so a host
whose clock is wrong takes no living lock away; only `everything` does, and only by name of a person.
"""

from __future__ import annotations

from datetime import datetime

from drctl.errors import AbsentError, CorruptError
from drctl.ports import Clock
from drctl.repository.lock import LockRecord, decode_lock
from drctl.repository.repo import FileKind, Repository, StoredId


def stale_locks(repository: Repository, clock: Clock) -> tuple[list[LockRecord], list[LockRecord]]:
    """The stale locks, and the living ones. A lock file that cannot be read (its writer's disk was
    full, say) is an exclusive one of nobody known: stale when it is old enough."""
    files = repository.lock_files(clock)
    own = files.write(False)
    try:
        records = [
            record for stored in repository.files(FileKind.LOCK) for record in _read(repository, stored)
        ]
    finally:
        files.remove(own)
    storage_now = _time_of(own, records)
    others = [record for record in records if record.id != own]
    stale = [record for record in others if record.is_stale(storage_now)]
    return stale, [record for record in others if record not in stale]


def remove_locks(repository: Repository, records: list[LockRecord]) -> None:
    """Remove these lock files."""
    for record in records:
        repository.remove(FileKind.LOCK, record.id)


def remove_every_lock(repository: Repository) -> int:
    """Remove all lock files, readable or not; how many there were. Whoever holds one loses it and
    abandons its run."""
    identifiers = [stored.id for stored in repository.files(FileKind.LOCK)]
    for identifier in identifiers:
        repository.remove(FileKind.LOCK, identifier)
    return len(identifiers)


def _read(repository: Repository, stored: StoredId) -> list[LockRecord]:
    """The lock in a file; none when it was released meanwhile."""
    file = FileKind.LOCK.key(stored.id)
    try:
        return [
            decode_lock(repository.load_json(FileKind.LOCK, stored.id), stored.id, stored.stored_at, file)
        ]
    except AbsentError:
        return []
    except CorruptError:
        unknown = LockRecord(stored.id, stored.stored_at, True, "", "unreadable", 0, stored.stored_at)
        return [unknown]


def _time_of(own: bytes, records: list[LockRecord]) -> datetime:
    for record in records:
        if record.id == own:
            return record.stored_at
    raise CorruptError(f"locks/{own.hex()}: written just now, and not in the listing", hint="try again")
