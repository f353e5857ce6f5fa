"""Storing finished packs in the background, a bounded number at a time.

Invariant: a pack is reported as stored only after `Storage.save` returned; the first failure stops
everything that comes after it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from drctl.errors import StorageError
from drctl.repository.index import index_fragment
from drctl.repository.packer import FinishedPack


class StoredPack(NamedTuple):
    """A stored pack as index files will name it."""

    id: bytes
    blobs: int
    size: int
    fragment: bytes  # its part of an index file's JSON


class Uploads:
    """A few threads that store packs; `submit` waits when all of them are busy."""

    def __init__(self, store: Callable[[FinishedPack], None], threads: int = 2) -> None:
        self._store = store
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="upload")
        self._slots = threading.BoundedSemaphore(threads)
        self._guard = threading.Lock()
        self._running: set[Future[None]] = set()
        self._stored: list[StoredPack] = []
        self._failure: BaseException | None = None

    def submit(self, pack: FinishedPack) -> None:
        """Queue a pack; raises what an earlier one failed with."""
        self._slots.acquire()
        try:
            self._raise_failure()
            future = self._pool.submit(self._run, pack)
        except BaseException:
            self._slots.release()  # or those who come after would wait for ever instead of failing
            raise
        with self._guard:
            self._running.add(future)
        future.add_done_callback(self._done)

    def take_stored(self) -> list[StoredPack]:
        """What was stored since the last call; raises what failed."""
        self._raise_failure()
        with self._guard:
            stored, self._stored = self._stored, []
        return stored

    def finish(self) -> list[StoredPack]:
        """Wait for everything, then as `take_stored`."""
        self._pool.shutdown(wait=True)
        return self.take_stored()

    def abandon(self) -> None:
        """Start nothing more; what is being stored is waited for."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _run(self, pack: FinishedPack) -> None:
        if self._failure is not None:
            return
        self._store(pack)
        stored = StoredPack(pack.id, len(pack.blobs), len(pack.data), index_fragment(pack.id, pack.blobs))
        with self._guard:
            self._stored.append(stored)

    def _done(self, future: Future[None]) -> None:
        with self._guard:
            self._running.discard(future)
            if not future.cancelled() and self._failure is None:
                self._failure = future.exception()
        self._slots.release()

    def _raise_failure(self) -> None:
        if isinstance(self._failure, OSError):
            # never to be taken for an unreadable source
            raise StorageError(f"a pack could not be stored: {self._failure}") from self._failure
        if self._failure is not None:
            raise self._failure
