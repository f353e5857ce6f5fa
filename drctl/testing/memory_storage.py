"""A storage in memory that keeps the contract, records calls and fails on request.

Invariant: without planned faults it behaves as `ports.Storage` says; it never loses or alters a
file by itself.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from drctl.errors import AbsentError, AlreadyExistsError, DrctlError
from drctl.ports import Buffer, Clock, StoredFile
from drctl.storage.keys import check_key, check_prefix
from drctl.storage.probe import keeps_writers_apart

_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Call:
    """One call as it came in; `subject` is the key or prefix."""

    operation: str
    subject: str


@dataclass(slots=True)
class _Fault:
    operation: str
    error: DrctlError
    calls_left: int
    times: int
    applied: bool
    containing: str


class MemoryStorage:
    """`ports.Storage` in a dictionary. Receipt times step by one second per save unless a clock is
    given. It lives in one process: it cannot be pickled."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.calls: list[Call] = []
        self.latency_s = 0.0
        self._clock = clock
        self._files: dict[str, tuple[bytes, datetime]] = {}
        self._faults: list[_Fault] = []
        self._lock = threading.RLock()

    def fail(
        self,
        operation: str,
        error: DrctlError,
        *,
        at: int = 1,
        times: int = 1,
        applied: bool = False,
        containing: str = "",
    ) -> None:
        """Raise `error` at the `at`-th next call of `operation` (`"save"`, `"load"`, ...) whose
        subject contains `containing`, and at the `times - 1` calls after it. `applied`: the
        operation takes effect all the same, as when only the answer got lost. A `list` that is
        `applied` fails after its first file."""
        self._faults.append(_Fault(operation, error, at - 1, times, applied, containing))

    def put_raw(self, key: str, content: bytes) -> None:
        """Replace a file behind everybody's back, as a broken disk or an attacker would."""
        with self._lock:
            self._files[key] = (content, self._now())

    @property
    def location(self) -> str:
        """Always `memory`."""
        return "memory"

    def save(self, key: str, parts: Sequence[Buffer]) -> None:
        """See `ports.Storage.save`."""
        check_key(key)
        fault = self._record("save", key)
        with self._lock:
            if fault is not None and not fault.applied:
                raise fault.error
            if key in self._files:
                raise AlreadyExistsError(f"{self.location}: {key} is there already")
            self._files[key] = (b"".join(parts), self._now())
        if fault is not None:
            raise fault.error

    def load(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `ports.Storage.load`."""
        self._record_or_fail("load", check_key(key))
        content, _ = self._get(key)
        return content[offset:] if length is None else content[offset : offset + length]

    def stat(self, key: str) -> StoredFile:
        """See `ports.Storage.stat`."""
        self._record_or_fail("stat", check_key(key))
        content, modified = self._get(key)
        return StoredFile(key, len(content), modified)

    def list(self, prefix: str) -> Iterator[StoredFile]:
        """See `ports.Storage.list`."""
        fault = self._record("list", check_prefix(prefix))
        if fault is not None and not fault.applied:
            raise fault.error
        with self._lock:
            files = [
                StoredFile(key, len(content), modified)
                for key, (content, modified) in self._files.items()
                if key.startswith(prefix)
            ]
        for file in files:
            yield file
            if fault is not None:
                raise fault.error

    def delete(self, key: str) -> None:
        """See `ports.Storage.delete`."""
        fault = self._record("delete", check_key(key))
        with self._lock:
            if fault is None or fault.applied:
                self._files.pop(key, None)
        if fault is not None:
            raise fault.error

    def refuses_overwrite(self) -> bool:
        """See `ports.Storage.refuses_overwrite`."""
        return keeps_writers_apart(self)

    def retains_files(self) -> None:
        """Never claimed: whoever may write here may delete."""

    def close(self) -> None:
        """Nothing is held open."""

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a MemoryStorage lives in one process and cannot be pickled")

    def _get(self, key: str) -> tuple[bytes, datetime]:
        with self._lock:
            try:
                return self._files[key]
            except KeyError:
                raise AbsentError(f"{self.location}: no {key}") from None

    def _now(self) -> datetime:
        if self._clock is not None:
            return self._clock.now()
        return _EPOCH + timedelta(seconds=len(self.calls))

    def _record_or_fail(self, operation: str, subject: str) -> None:
        fault = self._record(operation, subject)
        if fault is not None:
            raise fault.error

    def _record(self, operation: str, subject: str) -> _Fault | None:
        if self.latency_s:
            threading.Event().wait(self.latency_s)
        with self._lock:
            self.calls.append(Call(operation, subject))
            for fault in self._faults:
                if fault.operation != operation or fault.containing not in subject:
                    continue
                if fault.calls_left > 0:
                    fault.calls_left -= 1
                    continue
                fault.times -= 1
                if fault.times <= 0:
                    self._faults.remove(fault)
                return fault
            return None
