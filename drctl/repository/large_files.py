"""Files of many chunks: read and cut one after the other, their chunks sealed by a pool of threads.

The libraries give the interpreter lock back on big buffers, so threads of the main process use
all cores here. Invariant: the chunks in flight are bounded, so memory does not grow with the size
of a file; a file's content lists its chunks in order whatever order they were stored in.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from drctl.ports import Buffer
from drctl.repository.archive_job import Counts, Job
from drctl.repository.chunker import split
from drctl.repository.ids import hash_of
from drctl.repository.pack import BlobType
from drctl.repository.packer import Packer, seal_blob
from drctl.repository.uploads import StoredPack, Uploads

_READ = 2**20


class ChunkStore:
    """Stores the chunks of large files in parallel. Its methods may be called from any thread."""

    def __init__(self, job: Job, threads: int | None = None) -> None:
        count = threads or os.cpu_count() or 2
        self._job = job
        self._uploads = Uploads(job.repository.save_pack)
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="chunk")
        self._in_flight = threading.BoundedSemaphore(2 * count)
        self._guard = threading.Lock()
        self._counts = Counts()
        repository = job.repository
        self._packer = Packer(BlobType.DATA, repository.sealer(), repository.codec(), self._uploads.submit)

    def store(self, parts: Iterator[Buffer]) -> tuple[list[str], int]:
        """All chunks of one stream: their ids in hexadecimal, and the stream's length in bytes."""
        futures: list[Future[None]] = []
        content: list[str] = []
        size = 0
        for chunk in split(self._job.make_cutter(), parts):
            size += len(chunk)
            self._in_flight.acquire()
            position = len(content)
            content.append("")
            futures.append(self._pool.submit(self._chunk, chunk, content, position))
            if len(futures) >= 64:
                futures = _without_finished(futures)
        for future in futures:
            future.result()
        return content, size

    def repeat(self, chunk: Buffer, times: int) -> list[str]:
        """The content of `times` equal chunks (a hole), stored once."""
        content = [""]
        self._in_flight.acquire()
        self._chunk(bytes(chunk), content, 0)
        return content * times

    def take(self) -> tuple[Counts, list[StoredPack]]:
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
        """Start nothing more."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._uploads.abandon()

    def _chunk(self, chunk: bytes, content: list[str], position: int) -> None:
        try:
            repository = self._job.repository
            identifier = hash_of(chunk)
            content[position] = identifier.hex()
            if identifier in repository.blobs or not self._job.seen.claim(identifier):
                return
            sealed, raw_length = seal_blob(identifier, chunk, repository.sealer(), repository.codec())
            with self._guard:
                stored = self._packer.add_sealed(identifier, sealed, raw_length)
                self._counts.data_blobs += 1
                self._counts.bytes_added += len(chunk)
                self._counts.bytes_stored += stored
        finally:
            self._in_flight.release()


def _without_finished(futures: list[Future[None]]) -> list[Future[None]]:
    running = []
    for future in futures:
        if future.done():
            future.result()  # raises what the chunk failed with
        else:
            running.append(future)
    return running


def read_parts(
    read_into: Callable[[memoryview], int], hole: Callable[[int], int], skip: Callable[[int], None]
) -> Iterator[bytes]:
    """A file in parts of 1 MiB; a hole is not read but made of zeros."""
    buffer = bytearray(_READ)
    zeros = bytes(_READ)
    offset = 0
    with memoryview(buffer) as view:
        while True:
            empty = hole(offset)
            if empty >= _READ:
                skip(_READ)
                offset += _READ
                yield zeros
                continue
            count = read_into(view)
            if count == 0:
                return
            offset += count
            yield bytes(view[:count])
