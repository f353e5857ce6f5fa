"""Storing the chunks of streams in parallel.

The libraries give the interpreter lock back on big buffers, so threads use all cores here.
Invariant: the chunks in flight are bounded, so memory does not grow with the size of a file; a
stream's content lists its chunks in order, whatever order they were stored in.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from drctl.ports import Buffer
from drctl.repository.archive_job import Counts
from drctl.repository.crew import processors
from drctl.repository.ids import hash_of
from drctl.repository.pack import BlobType
from drctl.repository.packer import Packer, seal_blob
from drctl.repository.repo import Repository
from drctl.repository.seen import SeenBlobs
from drctl.repository.uploads import StoredPack, Uploads


class ChunkStore:
    """Stores chunks in parallel. Its methods may be called from any thread."""

    def __init__(self, repository: Repository, seen: SeenBlobs) -> None:
        threads = processors()
        self._repository = repository
        self._seen = seen
        self._uploads = Uploads(repository.save_pack)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="chunk")
        self._in_flight = threading.BoundedSemaphore(2 * threads)
        self._guard = threading.Lock()
        self._counts = Counts()
        # the packer seals pack headers only, under the guard; chunks are sealed by their threads
        self._packer = Packer(
            BlobType.DATA, repository.new_sealer(), repository.codec(), self._uploads.submit
        )

    def store(self, chunks: Iterable[Buffer | int]) -> tuple[list[str], int]:
        """All chunks of one stream: their ids in hexadecimal, and the stream's length in bytes. A
        number stands for the chunk before it, repeated that many times (holes)."""
        content: list[str] = []
        waiting: list[tuple[int, Future[str]]] = []
        size = last = 0
        for chunk in chunks:
            if isinstance(chunk, int):
                _settle(waiting, content)
                content += [content[-1]] * chunk
                size += last * chunk
                continue
            last = len(chunk)
            size += last
            self._in_flight.acquire()
            waiting.append((len(content), self._pool.submit(self._chunk, chunk)))
            content.append("")
            if len(waiting) >= 64:
                _settle(waiting, content)
        _settle(waiting, content)
        return content, size

    def count(self, counts: Counts) -> None:
        """Add to what `take_stored` tells."""
        with self._guard:
            self._counts.add(counts)

    def take_stored(self) -> tuple[Counts, list[StoredPack]]:
        """What was stored since the last call."""
        with self._guard:
            counts, self._counts = self._counts, Counts()
        return counts, self._uploads.take_stored()

    def finish(self) -> tuple[Counts, list[StoredPack]]:
        """Store what is left over and wait for it."""
        self._pool.shutdown(wait=True)
        with self._guard:
            self._packer.flush()
        packs = self._uploads.finish()
        return self._counts, packs

    def abandon(self) -> None:
        """Start nothing more, wait for what runs."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._uploads.abandon()

    def _chunk(self, chunk: Buffer) -> str:
        try:
            repository = self._repository
            identifier = hash_of(chunk)
            if not repository.blobs.has(identifier, BlobType.DATA) and self._seen.claim(
                identifier, BlobType.DATA
            ):
                sealed, raw_length = seal_blob(identifier, chunk, repository.sealer(), repository.codec())
                with self._guard:
                    self._counts.data_blobs += 1
                    self._counts.bytes_added += len(chunk)
                    self._counts.bytes_stored += self._packer.add_sealed(identifier, sealed, raw_length)
            return identifier.hex()
        finally:
            self._in_flight.release()


def _settle(waiting: list[tuple[int, Future[str]]], content: list[str]) -> None:
    for position, future in waiting:
        content[position] = future.result()
    waiting.clear()
