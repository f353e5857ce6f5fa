"""Files of many chunks: read and cut one after the other, by threads of the main process.

Invariant: what is read of a file is bounded by the chunks in flight, whatever its size; holes cost
nothing but time.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from drctl.ports import Buffer, Entry, Reader
from drctl.repository.archive_job import Counts, Job, LocalTimeText, Problem, Trouble
from drctl.repository.archive_worker import problem_of
from drctl.repository.chunk_store import ChunkStore
from drctl.repository.chunker import split
from drctl.repository.folders import Folder
from drctl.repository.tree import render_node
from drctl.repository.uploads import StoredPack

_READ = 2**20
_READERS = 1  # reading and cutting one file keeps all sealing threads busy


@dataclass(frozen=True, slots=True)
class ReadFile:
    """What became of a large file; no node where it could not be read."""

    folder: Folder
    name: bytes
    node: str | None
    problem: Problem | None


class LargeFiles:
    """Reads large files in the background. `add`, `done` and `finish` are for one thread."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._chunks = ChunkStore(job.repository, job.seen)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="large-file")
        self._reading: set[Future[ReadFile]] = set()

    @property
    def busy(self) -> bool:
        """Whether any file is being read or waits to be."""
        return bool(self._reading)

    def add(self, folder: Folder, entry: Entry, known: bool) -> None:
        """Read a file. `known`: the parent snapshot has it, so it is changed rather than new."""
        self._reading.add(self._readers.submit(self._read, folder, entry, known))

    def done(self, timeout_s: float) -> list[ReadFile]:
        """The files that are finished; waits for the first at most `timeout_s`."""
        finished, self._reading = wait(self._reading, timeout_s, "FIRST_COMPLETED")
        return [future.result() for future in finished]

    def take_stored(self) -> tuple[Counts, list[StoredPack]]:
        """What was stored since the last call."""
        return self._chunks.take_stored()

    def finish(self) -> tuple[Counts, list[StoredPack]]:
        """Store what is left over and wait for it."""
        return self._chunks.finish()

    def abandon(self) -> None:
        """Start nothing more, wait for what runs."""
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._chunks.abandon()
        self._readers.shutdown(wait=True)

    def _read(self, folder: Folder, entry: Entry, known: bool) -> ReadFile:
        path = folder.path_of(entry.name)
        try:
            with self._job.open(folder.path, entry.name) as directory:
                reader = directory.open(entry)
                try:
                    attributes = reader.extended_attributes()
                    content, size = self._content(reader)
                    changed = reader.changed()
                finally:
                    reader.close()
                node = render_node(
                    entry,
                    LocalTimeText(),
                    directory.owner_names(entry.uid, entry.gid),
                    content=content,
                    size=size,
                    extended_attributes=attributes,
                )
        except OSError as exc:
            return ReadFile(folder, entry.name, None, problem_of(path, exc))
        self._chunks.count(Counts(files_new=not known, files_changed=known, bytes=size))
        problem = Problem(path, Trouble.CHANGED, "it changed while being read") if changed else None
        return ReadFile(folder, entry.name, node, problem)

    def _content(self, reader: Reader) -> tuple[list[str], int]:
        block = self._job.source.block_size
        if block is None:
            return self._chunks.store(split(self._job.make_cutter(), _parts(reader)))
        return self._chunks.store(_blocks(reader, block))


def _parts(reader: Reader) -> Iterator[Buffer]:
    """A file in parts of 1 MiB; holes are not read but made of zeros."""
    zeros = bytes(_READ)
    buffer = bytearray(_READ)
    offset = 0
    with memoryview(buffer) as view:
        while True:
            if reader.hole(offset) >= _READ:
                reader.skip(_READ)
                offset += _READ
                yield zeros
                continue
            count = reader.readinto(view)
            if count == 0:
                return
            offset += count
            yield view[:count]


def _blocks(reader: Reader, size: int) -> Iterator[Buffer | int]:
    """A file in aligned blocks of one size; a run of blocks in a hole is one block and a number."""
    offset = 0
    while True:
        empty = reader.hole(offset) // size
        if empty:
            reader.skip(empty * size)
            offset += empty * size
            yield bytes(size)
            yield empty - 1
            continue
        block = bytearray(size)
        filled = 0
        with memoryview(block) as view:
            while filled < size and (count := reader.readinto(view[filled:])):
                filled += count
        if filled:
            yield bytes(block[:filled])
        if filled < size:
            return
        offset += size
