"""Locks: who is using a repository, so that prune never deletes under a writer.

Format: a sealed JSON file in `locks/` (restic doc/design.rst, "Locks"). Shared by readers and
writers, exclusive for prune. Refreshed every five minutes; stale after thirty.
Invariant: whoever holds a `HeldLock` whose `check` passes has a lock file in the storage that
nobody may call stale yet; ages are differences of the storage's own clock, so a host whose clock is
wrong removes nobody's lock.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

import orjson

from drctl.errors import AbsentError, CorruptError, DrctlError, LockedError
from drctl.ports import Clock
from drctl.repository.fields import mapping, number, optional_text, text
from drctl.repository.lock_owner import has_ended, mark_of_this_process
from drctl.repository.snapshot import instant, time_text

REFRESH_EVERY = timedelta(minutes=5)
STALE_AFTER = timedelta(minutes=30)
_LOST_AFTER = STALE_AFTER - REFRESH_EVERY * 1.5  # a refresh that succeeds later may come too late
_SETTLE_S = 0.2  # two that lock at the same time see each other after this
_LISTINGS = 10  # how often locks are listed anew because one vanished meanwhile


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
    owner: str = ""  # drctl's own mark of the process; restic's locks have none

    def describe(self) -> str:
        """For messages."""
        kind = "exclusive" if self.exclusive else "shared"
        return f"{kind} lock of {self.username}@{self.hostname} pid {self.pid} since {time_text(self.time)}"

    def is_stale(self, storage_now: datetime) -> bool:
        """Whether `repo unlock` may remove it: too old, or of a process that has ended, as far as host
        name and pid tell (restic's own rule). `storage_now` is of the clock that stamped the file:
        another one may be days off."""
        if self.is_overdue(storage_now) or self.owner_has_ended():
            return True
        return not self.owner and self.hostname == socket.gethostname() and not _alive(self.pid)

    def is_overdue(self, storage_now: datetime) -> bool:
        """Whether it was not refreshed for so long that it stands for nobody."""
        return storage_now - self.stored_at > STALE_AFTER

    def owner_has_ended(self) -> bool:
        """Whether its process has surely ended."""
        return has_ended(self.owner, self.pid)


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
            "drctl_owner": mark_of_this_process(),  # restic reads over it
        }
    )


def decode_lock(json: bytes, identifier: bytes, stored_at: datetime, where: str) -> LockRecord:
    """CorruptError naming `where` when malformed."""
    try:
        raw = mapping(orjson.loads(json))
        return LockRecord(
            id=identifier,
            time=instant(text(raw["time"]), where),
            exclusive=raw["exclusive"] is not False,  # in doubt it conflicts
            hostname=optional_text(raw.get("hostname")),
            username=optional_text(raw.get("username")),
            pid=number(raw["pid"]),
            stored_at=stored_at,
            owner=optional_text(raw.get("drctl_owner")),
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as exc:
        raise CorruptError(f"{where}: malformed lock: {str(exc)[:100]}") from exc


@dataclass(frozen=True, slots=True)
class LockFiles:
    """The storage's lock files, as `Repository` offers them."""

    read_all: Callable[[], list[LockRecord]]
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
        self._leftovers: list[bytes] = []  # replaced by a refresh, but not removed yet
        self._thread: threading.Thread | None = None
        self._confirmed = False
        self.stored_at: datetime | None = None  # the storage's time of its first file, once confirmed
        _survive_probes()
        doubtful = self._refuse_fresh_conflicts()
        self._refreshed_at = clock.monotonic()  # before the write: it may take long
        self._id = files.write(exclusive)
        self._written_at = clock.monotonic()
        if doubtful:
            self._settle_conflicts()

    def confirm(self, *, keep_fresh: bool = True) -> None:
        """Look again after a moment, when whoever locked at the same time is visible; LockedError
        then. Call before the first write; work that only reads may be done in between."""
        if self._confirmed:
            return
        remaining = self._written_at + _SETTLE_S - self._clock.monotonic()
        if remaining > 0:
            self._clock.sleep(remaining)
        self._settle_conflicts()
        self._confirmed = True
        if keep_fresh:
            self.keep_fresh()

    def keep_fresh(self) -> None:
        """Refresh it from now on, in a thread. Not before forking workers."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._refresh_for_ever, name="lock-refresh", daemon=True)
            self._thread.start()

    def check(self) -> None:
        """LockedError once the lock was lost: whatever is being written must be abandoned."""
        if not self._lost and self._is_overdue():
            # also when the refreshing thread hangs or died, or the machine slept
            self._lost = f"it was not refreshed for {_LOST_AFTER.total_seconds() / 60:.0f} minutes"
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
            started = self._clock.monotonic()
            try:
                if self._is_overdue():
                    # somebody may be removing it at this very moment
                    self._lost = "it could not be refreshed in time"
                elif all(record.id != self._id for record in self._files.read_all()):
                    self._lost = "its file was removed by somebody"
                else:
                    self._replace_file(started)
            except DrctlError as exc:
                if self._is_overdue():
                    self._lost = f"it could not be refreshed in time ({exc.message})"

    def release(self) -> None:
        """Remove the lock file. Failing to is no error: it goes stale."""
        self._stop.set()
        with self._guard:
            self._leftovers.append(self._id)
            try:
                self._remove_leftovers()
            except DrctlError:
                return  # unreachable storage: the work is done, and the file goes stale by itself

    def __enter__(self) -> HeldLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _is_overdue(self) -> bool:
        return self._clock.monotonic() - self._refreshed_at > _LOST_AFTER.total_seconds()

    def _replace_file(self, started: float) -> None:
        fresh = self._files.write(self._exclusive)
        self._leftovers.append(self._id)
        self._id, self._refreshed_at = fresh, started
        self._remove_leftovers()

    def _remove_leftovers(self) -> None:
        while self._leftovers:
            self._files.remove(self._leftovers[-1])
            self._leftovers.pop()

    def _refresh_for_ever(self) -> None:
        interval = REFRESH_EVERY.total_seconds()
        while not self._stop.wait(interval):
            self.refresh()
            # after a failed refresh, try more often while the lock is still good
            behind = self._clock.monotonic() - self._refreshed_at
            interval = 30.0 if behind > interval else REFRESH_EVERY.total_seconds()

    def _conflicts(self, records: Iterable[LockRecord]) -> list[LockRecord]:
        return [record for record in records if record.exclusive or self._exclusive]

    def _refuse_fresh_conflicts(self) -> bool:
        """The look before writing: whether a conflicting lock is there that only this host's clock
        calls stale. The storage's clock, known once our own file lies there, decides on it."""
        doubtful = False
        records = self._files.read_all()
        conflicting = self._conflicts(records)
        for record in records:
            if record.owner_has_ended() and record not in conflicting:
                with suppress(DrctlError):  # a courtesy to stock restic, whose check minds any lock
                    self._files.remove(record.id)
        for record in conflicting:
            if record.owner_has_ended():
                self._files.remove(record.id)
            elif record.is_overdue(self._clock.now()):
                doubtful = True
            else:
                raise _locked(record)
        return doubtful

    def _settle_conflicts(self) -> None:
        """The look after writing; gives the lock up where another one conflicts."""
        try:
            self.check()
            records = {record.id: record for record in self._files.read_all()}
            own = records.pop(self._id, None)
            if own is None:
                raise LockedError(
                    "the lock on the repository was removed by somebody", hint="run the command once more"
                )
            self.stored_at = own.stored_at
            held_for = timedelta(seconds=self._clock.monotonic() - self._written_at)
            for record in self._conflicts(records.values()):
                if not (record.is_overdue(own.stored_at + held_for) or record.owner_has_ended()):
                    raise _locked(record)
                self._files.remove(record.id)
        except BaseException:
            self.release()
            raise


def _survive_probes() -> None:
    """restic asks whether the owner of a lock is alive by sending it SIGHUP, which ends a process that
    does nothing about it. A handler that somebody installed must know that."""
    if (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
    ):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _locked(record: LockRecord) -> LockedError:
    return LockedError(
        f"repository is locked: {record.describe()}",
        hint="wait for it; if that process is gone for good: drctl repo unlock",
    )


def read_locks(
    entries: Callable[[], Iterable[tuple[bytes, datetime]]], load: Callable[[bytes], bytes]
) -> list[LockRecord]:
    """The lock files there are now. Where one vanishes between listing and loading, all is listed
    anew: it was released, or its owner has just replaced it by a fresh one."""
    for _ in range(_LISTINGS):
        records = []
        try:
            for identifier, stored_at in entries():
                json = load(identifier)
                records.append(decode_lock(json, identifier, stored_at, f"locks/{identifier.hex()}"))
        except AbsentError:
            continue
        return records
    raise LockedError("the locks of the repository keep changing", hint="try again in a moment")
