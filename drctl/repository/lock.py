"""Locks: who is using a repository, so that prune never deletes under a writer.

Format: a sealed JSON file in `locks/` (restic doc/design.rst, "Locks"). Shared by readers and
writers, exclusive for prune. Refreshed every five minutes; stale after thirty.
Invariant: whoever holds a `HeldLock` that is not lost has a fresh lock file in the storage; ages
are differences of the storage's own clock, so a host whose clock is wrong harms nobody.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import orjson

from drctl.errors import AbsentError, CorruptError, DrctlError, LockedError
from drctl.ports import Clock
from drctl.repository.snapshot import instant, time_text

REFRESH_EVERY = timedelta(minutes=5)
STALE_AFTER = timedelta(minutes=30)
_LOST_AFTER = STALE_AFTER - REFRESH_EVERY * 1.5  # a refresh that succeeds later may come too late
_SETTLE_S = 0.2  # two that lock at the same time see each other after this


@dataclass(frozen=True, slots=True)
class LockRecord:
    """One lock file: its content, its id, and the storage's time of it."""

    id: bytes
    time: datetime
    exclusive: bool
    hostname: str
    username: str
    pid: int
    stored_at: datetime

    def describe(self) -> str:
        """For messages."""
        kind = "exclusive" if self.exclusive else "shared"
        return f"{kind} lock of {self.username}@{self.hostname} pid {self.pid} since {time_text(self.time)}"

    def is_stale(self, storage_now: datetime) -> bool:
        """Too old, or of a process of this very host that is gone."""
        if storage_now - self.stored_at > STALE_AFTER:
            return True
        return self.hostname == socket.gethostname() and not _alive(self.pid)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def encode_lock(now: datetime, *, exclusive: bool, username: str) -> bytes:
    """A lock file's JSON for this process."""
    return orjson.dumps(
        {
            "time": time_text(now),
            "exclusive": exclusive,
            "hostname": socket.gethostname(),
            "username": username,
            "pid": os.getpid(),
            "uid": os.getuid(),
            "gid": os.getgid(),
        }
    )


def decode_lock(json: bytes, identifier: bytes, stored_at: datetime, where: str) -> LockRecord:
    """CorruptError naming `where` when malformed."""
    try:
        raw = orjson.loads(json)
        return LockRecord(
            id=identifier,
            time=instant(raw["time"], where),
            exclusive=bool(raw["exclusive"]),
            hostname=str(raw.get("hostname", "")),
            username=str(raw.get("username", "")),
            pid=int(raw["pid"]),
            stored_at=stored_at,
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as exc:
        raise CorruptError(f"{where}: malformed lock: {exc}") from exc


@dataclass(frozen=True, slots=True)
class LockFiles:
    """The storage's lock files, as `Repository` offers them."""

    read_all: Callable[[], Iterator[LockRecord]]
    write: Callable[[bool], bytes]  # exclusive -> id of the new lock file
    remove: Callable[[bytes], None]


class HeldLock:
    """A lock while it is held: a thread refreshes it, `check` says whether it still holds."""

    def __init__(self, files: LockFiles, clock: Clock, *, exclusive: bool) -> None:
        self._files = files
        self._clock = clock
        self._exclusive = exclusive
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._lost: str | None = None
        self._refuse_conflicts(own=None)
        self._id = files.write(exclusive)
        self._written_at = self._refreshed_at = clock.monotonic()
        self._thread: threading.Thread | None = None
        self._confirmed = False

    def confirm(self) -> None:
        """Look again after a moment, when whoever locked at the same time is visible; LockedError
        then. Call before the first write; work that only reads may be done in between."""
        if self._confirmed:
            return
        remaining = self._written_at + _SETTLE_S - self._clock.monotonic()
        if remaining > 0:
            self._clock.sleep(remaining)
        try:
            self._refuse_conflicts(own=self._id)
        except DrctlError:
            self.release()
            raise
        self._confirmed = True
        self._thread = threading.Thread(target=self._keep_fresh, name="lock-refresh", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """LockedError once the lock was lost: whatever is being written must be abandoned."""
        if self._lost:
            raise LockedError(
                f"the lock on the repository was lost: {self._lost}",
                hint="what was stored so far is kept and found again: run the command once more",
            )

    def refresh(self) -> None:
        """Write a new lock file, then remove the old one. What fails here is remembered, and is
        fatal once the lock may be taken for stale by others."""
        with self._guard:
            if self._stop.is_set() or self._lost:
                return
            try:
                if all(record.id != self._id for record in self._files.read_all()):
                    self._lost = "its file was removed by somebody"
                    return
                fresh = self._files.write(self._exclusive)
                old, self._id = self._id, fresh
                self._refreshed_at = self._clock.monotonic()
                self._files.remove(old)
            except DrctlError as exc:
                if self._clock.monotonic() - self._refreshed_at > _LOST_AFTER.total_seconds():
                    self._lost = f"it could not be refreshed in time ({exc.message})"

    def release(self) -> None:
        """Remove the lock file. Failing to is no error: it goes stale."""
        self._stop.set()
        with self._guard:
            try:
                self._files.remove(self._id)
            except DrctlError:
                return  # unreachable storage: the work is done, and the file goes stale by itself

    def __enter__(self) -> HeldLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _keep_fresh(self) -> None:
        interval = REFRESH_EVERY.total_seconds()
        while not self._stop.wait(interval):
            self.refresh()
            # after a failed refresh, try more often while the lock is still good
            behind = self._clock.monotonic() - self._refreshed_at
            interval = 30.0 if behind > interval else REFRESH_EVERY.total_seconds()

    def _refuse_conflicts(self, own: bytes | None) -> None:
        records = list(self._files.read_all())
        storage_now = max((record.stored_at for record in records), default=self._clock.now())
        if own is None:
            storage_now = max(storage_now, self._clock.now())
        for record in records:
            if record.id == own or not (record.exclusive or self._exclusive):
                continue
            if record.is_stale(storage_now):
                self._files.remove(record.id)
                continue
            raise LockedError(
                f"repository is locked: {record.describe()}",
                hint="wait for it; if that process is gone for good: drctl repo unlock",
            )


def read_locks(
    entries: Iterator[tuple[bytes, datetime]], load: Callable[[bytes], bytes]
) -> Iterator[LockRecord]:
    """The lock files there are now; one that vanishes meanwhile was released."""
    for identifier, stored_at in entries:
        try:
            json = load(identifier)
        except AbsentError:
            continue
        yield decode_lock(json, identifier, stored_at, f"locks/{identifier.hex()}")
