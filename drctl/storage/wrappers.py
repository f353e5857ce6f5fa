"""What storages do not do themselves: retrying, limiting, throttling, refusing writes.

Invariant: a wrapper keeps the whole contract of `ports.Storage`, so that wrappers stack in any
order. A rate holds for a process and all it forks; a number of connections for each process; a copy
made by pickling starts with its own.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from drctl.errors import AlreadyExistsError, RefusedError, UnreachableError
from drctl.ports import Buffer, Clock, Storage, StoredFile
from drctl.storage.per_process import PerProcess

if TYPE_CHECKING:
    from tenacity import RetryCallState

T = TypeVar("T")

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_END = None


class _Wrapper:
    """Passes everything through."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    @property
    def location(self) -> str:
        """The wrapped storage's."""
        return self._storage.location

    def save(self, key: str, parts: Sequence[Buffer]) -> None:
        """See `ports.Storage.save`."""
        self._storage.save(key, parts)

    def load(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `ports.Storage.load`."""
        return self._storage.load(key, offset, length)

    def stat(self, key: str) -> StoredFile:
        """See `ports.Storage.stat`."""
        return self._storage.stat(key)

    def list(self, prefix: str) -> Iterator[StoredFile]:
        """See `ports.Storage.list`."""
        return self._storage.list(prefix)

    def delete(self, key: str) -> None:
        """See `ports.Storage.delete`."""
        self._storage.delete(key)

    def refuses_overwrite(self) -> bool:
        """See `ports.Storage.refuses_overwrite`."""
        return self._storage.refuses_overwrite()

    def retains_files(self) -> bool | None:
        """See `ports.Storage.retains_files`."""
        return self._storage.retains_files()

    def close(self) -> None:
        """See `ports.Storage.close`."""
        self._storage.close()


class Retrying(_Wrapper):
    """Tries again what may pass (UnreachableError), with growing, jittered pauses, for `retry_for`
    at most: no attempt starts later than that after the first. Other errors pass at once."""

    def __init__(self, storage: Storage, clock: Clock, retry_for: timedelta) -> None:
        super().__init__(storage)
        self._clock = clock
        self._retry_for_s = retry_for.total_seconds()

    def save(self, key: str, parts: Sequence[Buffer]) -> None:
        """After an attempt whose outcome is unknown, the key may be taken by ourselves: what lies
        there is loaded and compared, and counts as saved only if it is the same (safety line 5)."""
        in_doubt = False

        def attempt() -> None:
            nonlocal in_doubt
            try:
                self._storage.save(key, parts)
            except UnreachableError:
                in_doubt = True
                raise
            except AlreadyExistsError:
                if not (in_doubt and self._holds(key, parts)):
                    raise

        self._try(attempt)

    def load(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `ports.Storage.load`."""
        return self._try(lambda: self._storage.load(key, offset, length))

    def stat(self, key: str) -> StoredFile:
        """See `ports.Storage.stat`."""
        return self._try(lambda: self._storage.stat(key))

    def list(self, prefix: str) -> Iterator[StoredFile]:
        """See `ports.Storage.list`. The listing is taken whole before the first file is handed out:
        a second attempt starts over, and must not name a file twice."""
        return iter(self._try(lambda: list(self._storage.list(prefix))))

    def delete(self, key: str) -> None:
        """See `ports.Storage.delete`."""
        self._try(lambda: self._storage.delete(key))

    def refuses_overwrite(self) -> bool:
        """See `ports.Storage.refuses_overwrite`."""
        return self._try(self._storage.refuses_overwrite)

    def retains_files(self) -> bool | None:
        """See `ports.Storage.retains_files`."""
        return self._try(self._storage.retains_files)

    def _holds(self, key: str, parts: Sequence[Buffer]) -> bool:
        if self._storage.stat(key).size != sum(memoryview(part).nbytes for part in parts):
            return False
        ours = hashlib.sha256()
        for part in parts:
            ours.update(part)
        return hashlib.sha256(self._storage.load(key)).digest() == ours.digest()

    def _try(self, attempt: Callable[[], T]) -> T:
        import tenacity

        start = self._clock.monotonic()

        def is_late(state: RetryCallState) -> bool:
            return self._clock.monotonic() + state.upcoming_sleep - start > self._retry_for_s

        tries = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(UnreachableError),
            wait=tenacity.wait_random_exponential(_FIRST_PAUSE_S, _LONGEST_PAUSE_S),
            stop=is_late,
            sleep=self._clock.sleep,
            reraise=True,
        )
        return tries(attempt)


class Limited(_Wrapper):
    """Lets at most `connections` calls in at a time; the others wait."""

    def __init__(self, storage: Storage, connections: int) -> None:
        super().__init__(storage)
        self._connections = connections
        self._slots = PerProcess(self._make_slots)

    def save(self, key: str, parts: Sequence[Buffer]) -> None:
        """See `ports.Storage.save`."""
        with self._slot():
            self._storage.save(key, parts)

    def load(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `ports.Storage.load`."""
        with self._slot():
            return self._storage.load(key, offset, length)

    def stat(self, key: str) -> StoredFile:
        """See `ports.Storage.stat`."""
        with self._slot():
            return self._storage.stat(key)

    def list(self, prefix: str) -> Iterator[StoredFile]:
        """See `ports.Storage.list`. Holds a slot only while it fetches, so that a loop over a
        listing can load files with a single connection."""
        with self._slot():
            files = self._storage.list(prefix)
        while True:
            with self._slot():
                file = next(files, _END)
            if file is None:
                return
            yield file

    def delete(self, key: str) -> None:
        """See `ports.Storage.delete`."""
        with self._slot():
            self._storage.delete(key)

    def refuses_overwrite(self) -> bool:
        """See `ports.Storage.refuses_overwrite`."""
        with self._slot():
            return self._storage.refuses_overwrite()

    def retains_files(self) -> bool | None:
        """See `ports.Storage.retains_files`."""
        with self._slot():
            return self._storage.retains_files()

    def _slot(self) -> AbstractContextManager[object]:
        return self._slots.get()

    def _make_slots(self) -> threading.BoundedSemaphore:
        return threading.BoundedSemaphore(self._connections)

    def __reduce__(self) -> tuple[object, ...]:
        return (Limited, (self._storage, self._connections))


class Throttled(_Wrapper):
    """Keeps the mean rate of transferred bytes under a limit, in bytes/s; None is no limit.

    A transfer runs at full speed and the next one waits until the mean is met: a pack of 16 MiB at
    1 MiB/s is followed by 16 s of silence."""

    def __init__(
        self, storage: Storage, clock: Clock, upload_bytes_s: int | None, download_bytes_s: int | None
    ) -> None:
        super().__init__(storage)
        self._clock = clock
        self._rates = (upload_bytes_s, download_bytes_s)
        self._meters = tuple(_Meter(clock, rate) for rate in self._rates)

    def save(self, key: str, parts: Sequence[Buffer]) -> None:
        """See `ports.Storage.save`."""
        self._meters[0].wait_for(sum(memoryview(part).nbytes for part in parts))
        self._storage.save(key, parts)

    def load(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `ports.Storage.load`."""
        meter = self._meters[1]
        meter.wait_for(0)
        data = self._storage.load(key, offset, length)
        meter.count(len(data))
        return data

    def __reduce__(self) -> tuple[object, ...]:
        return (Throttled, (self._storage, self._clock, *self._rates))


class _Meter:
    """When the next transfer may start, given what went before; one for a process and its forks."""

    def __init__(self, clock: Clock, bytes_s: int | None) -> None:
        self._clock = clock
        self._bytes_s = bytes_s
        self._free_at = multiprocessing.get_context("fork").Value("d", clock.monotonic())

    def wait_for(self, size: int) -> None:
        """Sleep until a transfer may start, and book `size` bytes."""
        if self._bytes_s is None:
            return
        with self._free_at.get_lock():
            now = self._clock.monotonic()
            start = max(now, self._free_at.value)
            self._free_at.value = start + size / self._bytes_s
        if start > now:
            self._clock.sleep(start - now)

    def count(self, size: int) -> None:
        """Book bytes that were transferred."""
        if self._bytes_s is not None:
            with self._free_at.get_lock():
                self._free_at.value = max(self._clock.monotonic(), self._free_at.value) + size / self._bytes_s


class ReadOnly(_Wrapper):
    """Refuses every write."""

    def save(self, key: str, parts: Sequence[Buffer]) -> None:
        """Always RefusedError."""
        raise RefusedError(f"{self.location} is opened read-only: {key} is not saved")

    def delete(self, key: str) -> None:
        """Always RefusedError."""
        raise RefusedError(f"{self.location} is opened read-only: {key} is not deleted")

    def refuses_overwrite(self) -> bool:
        """Always RefusedError: the proof has to write."""
        raise RefusedError(
            f"{self.location} is opened read-only: whether it refuses overwriting is not tried"
        )

    def retains_files(self) -> bool | None:
        """Always RefusedError: the proof has to write."""
        raise RefusedError(f"{self.location} is opened read-only: whether it retains files is not tried")
