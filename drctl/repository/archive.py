"""Backing a source up: directories go to worker processes, large files to threads, trees come together.

The scheduler is a depth-first stack of directories with a bound on what is in flight; a directory's
tree is written when the last thing in it is done. Invariant: `archive` returns only when every pack
it refers to is stored and in an index; only then may the caller write the snapshot.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from drctl.domain.events import Emit, Progressed
from drctl.errors import DrctlError, SourceError
from drctl.ports import Clock, Entry
from drctl.repository.archive_job import (
    Answer,
    Child,
    Counts,
    Job,
    LocalTimeText,
    Problem,
    Task,
    Trouble,
)
from drctl.repository.archive_worker import problem_of, serve
from drctl.repository.ids import hash_of
from drctl.repository.index import BLOBS_PER_INDEX, join_index
from drctl.repository.large_files import ChunkStore, read_parts
from drctl.repository.pack import BlobType
from drctl.repository.packer import Packer
from drctl.repository.repo import FileKind, Repository
from drctl.repository.tree import decode_tree, join_tree, render_node
from drctl.repository.uploads import StoredPack, Uploads

_TASKS_AHEAD = 3  # a worker never waits for its next task
_INDEX_EVERY_S = 300.0  # an aborted run is continued from its last index
_PROGRESS_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class Archived:
    """What became of a source: the root tree, and everything that was not as it should be."""

    tree: bytes
    counts: Counts
    problems: tuple[Problem, ...]


@dataclass(slots=True)
class _Folder:
    """A directory whose tree is not finished."""

    path: bytes
    above: _Folder | None
    name: bytes
    unfinished_node: str
    parent_tree: bytes | None
    nodes: list[tuple[bytes, str]] = field(default_factory=list)
    pending: int = 1
    is_new: bool = True


class IndexWriter:
    """Collects stored packs and writes an index file over them now and then."""

    def __init__(self, repository: Repository, clock: Clock, before_write: Callable[[], None]) -> None:
        self._repository = repository
        self._clock = clock
        self._before_write = before_write
        self._fragments: list[bytes] = []
        self._blobs = 0
        self._written_at = clock.monotonic()

    def add(self, packs: list[StoredPack]) -> None:
        """Note stored packs; writes when there are many or the last index is old."""
        for pack in packs:
            self._fragments.append(pack.fragment)
            self._blobs += pack.blobs
        due = self._clock.monotonic() - self._written_at > _INDEX_EVERY_S
        if self._blobs >= BLOBS_PER_INDEX or (due and self._fragments):
            self.flush()

    def flush(self) -> None:
        """Write what is not in an index yet."""
        if self._fragments:
            self._before_write()
            self._repository.save_json(FileKind.INDEX, join_index(self._fragments))
        self._fragments, self._blobs, self._written_at = [], 0, self._clock.monotonic()


def archive(
    job: Job, clock: Clock, emit: Emit, check: Callable[[], None], parent_tree: bytes | None = None
) -> Archived:
    """Store everything in the job's source. `check` is called often and raises to abort (a lost
    lock, a request to stop). Errors of single entries end up in `problems`; SourceError when none
    of the roots could be read."""
    run = _Run(job, clock, emit, check)
    try:
        return run.run(parent_tree)
    finally:
        run.close()


class _Run:
    def __init__(self, job: Job, clock: Clock, emit: Emit, check: Callable[[], None]) -> None:
        self._job = job
        self._clock = clock
        self._emit = emit
        self._check = check
        self._counts = Counts()
        self._problems: list[Problem] = []
        self._folders: dict[int, _Folder] = {}
        self._stack: list[Task] = []
        self._next_number = 0
        self._workers: dict[Connection, int] = {}  # channel -> tasks it has
        self._processes: list[BaseProcess] = []
        self._shown_at = 0.0
        self._time_text = LocalTimeText()
        self._root_tree: bytes | None = None
        self._start_workers()  # before any thread of this run is started
        self._index = IndexWriter(job.repository, clock, check)
        self._uploads = Uploads(job.repository.save_pack)
        self._trees = Packer(
            BlobType.TREE, job.repository.sealer(), job.repository.codec(), self._uploads.submit
        )
        self._chunks = ChunkStore(job)
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="large-file")
        self._reading: dict[Future[tuple[bytes, str | None, list[Problem]]], _Folder] = {}

    # --- the course of it

    def run(self, parent_tree: bytes | None) -> Archived:
        top = _Folder(b"/", None, b"", "", parent_tree)
        self._plant_roots(top)
        self._entry_done(top)  # the folder's own share of `pending`
        while self._folders_unfinished():
            self._check()
            self._dispatch()
            self._collect()
            self._show()
        self._finish_workers()
        counts, packs = self._chunks.finish()
        self._note(counts, packs)
        self._trees.flush()
        self._index.add(self._uploads.finish())
        self._index.flush()
        if self._root_tree is None:
            raise DrctlError("internal error: the run ended without a root tree")
        self._emit(Progressed(self._counts.files, self._counts.bytes))
        return Archived(self._root_tree, self._counts, tuple(self._problems))

    def close(self) -> None:
        """End what still runs, after a failure too."""
        for channel in self._workers:
            channel.close()
        for process in self._processes:
            process.join(0.5 if self._root_tree is None else 5)
            if process.is_alive():
                process.kill()
                process.join()
        self._readers.shutdown(wait=True, cancel_futures=True)
        self._chunks.abandon()
        self._uploads.abandon()

    def _folders_unfinished(self) -> bool:
        return self._root_tree is None

    # --- workers

    def _start_workers(self) -> None:
        # forked, so that the blob table and the source need not be copied or sent
        context = multiprocessing.get_context("fork")
        gc.collect()
        gc.freeze()  # what is shared now stays shared: the collector does not touch it
        for _ in range(os.cpu_count() or 2):
            ours, theirs = context.Pipe()
            process = context.Process(target=_worker, args=(self._job, theirs, [*self._workers, ours]), daemon=True)
            process.start()
            theirs.close()
            self._workers[ours] = 0
            self._processes.append(process)
        gc.unfreeze()

    def _dispatch(self) -> None:
        while self._stack:
            channel = min(self._workers, key=self._workers.__getitem__)
            if self._workers[channel] >= _TASKS_AHEAD:
                return
            self._workers[channel] += 1
            self._send(channel, self._stack.pop())

    def _send(self, channel: Connection, message: Task | None) -> None:
        try:
            channel.send(message)
        except OSError as exc:
            raise SourceError("a worker process of this backup died", hint="was it killed for memory?") from exc

    def _collect(self) -> None:
        busy: list[Connection] = [channel for channel, tasks in self._workers.items() if tasks]
        for future in [future for future in self._reading if future.done()]:
            folder = self._reading.pop(future)
            name, node, problems = future.result()
            self._problems += problems
            if node is not None:
                folder.nodes.append((name, node))
            self._entry_done(folder)
        counts, packs = self._chunks.take()
        self._note(counts, packs)
        self._index.add(self._uploads.take_stored())
        for channel in wait(busy, timeout=0.02 if self._reading else 0.5) if busy else ():
            self._receive(channel)  # type: ignore[arg-type]
        if not busy and self._reading:
            _wait_for_any(self._reading)

    def _receive(self, channel: Connection) -> None:
        answer = self._next_answer(channel)
        self._workers[channel] -= 1
        folder = self._folders.pop(answer.number)
        self._note(answer.counts, answer.packs)
        self._problems += answer.problems
        if not answer.opened and folder.above is not None:
            self._leave_out(folder)
            return
        if answer.tree is not None:
            self._tree_done(folder, answer.tree)
            return
        folder.nodes += answer.nodes
        for part in answer.parts:
            folder.pending += 1
            self._push(folder, Task(0, folder.path, folder.parent_tree, part))
        for child in answer.children:
            self._push_child(folder, child)
        for name, known in answer.large:
            self._read_large(folder, name, known)
        self._entry_done(folder)

    def _next_answer(self, channel: Connection) -> Answer:
        try:
            answer = channel.recv()
        except (EOFError, OSError) as exc:
            raise SourceError("a worker process of this backup died", hint="was it killed for memory?") from exc
        if isinstance(answer, DrctlError):
            raise answer
        if not isinstance(answer, Answer):
            raise SourceError(f"a worker process of this backup answered {type(answer).__name__}")
        return answer

    def _finish_workers(self) -> None:
        for channel in self._workers:
            self._send(channel, None)
        for channel in self._workers:
            answer = self._next_answer(channel)
            self._note(answer.counts, answer.packs)

    # --- folders

    def _push(self, folder: _Folder, task: Task) -> None:
        self._next_number += 1
        self._folders[self._next_number] = folder
        self._stack.append(task._replace(number=self._next_number))

    def _push_child(self, above: _Folder, child: Child) -> None:
        path = above.path.rstrip(b"/") + b"/" + child.name
        folder = _Folder(path, above, child.name, child.unfinished_node, child.parent_tree, is_new=child.is_new)
        above.pending += 1
        self._push(folder, Task(0, path, child.parent_tree))

    def _entry_done(self, folder: _Folder) -> None:
        folder.pending -= 1
        if folder.pending == 0:
            folder.nodes.sort(key=lambda named: named[0])
            self._tree_done(folder, self._store_tree(join_tree(node for _, node in folder.nodes)))

    def _store_tree(self, tree: bytes) -> bytes:
        identifier = hash_of(tree)
        if identifier not in self._job.repository.blobs and self._job.seen.claim(identifier):
            self._counts.tree_blobs += 1
            self._counts.bytes_added += len(tree)
            self._counts.bytes_stored += self._trees.add(identifier, tree)
        return identifier

    def _tree_done(self, folder: _Folder, tree: bytes) -> None:
        if folder.above is None:
            self._root_tree = tree
            return
        if folder.is_new:
            self._counts.dirs_new += 1
        elif tree == folder.parent_tree:
            self._counts.dirs_unmodified += 1
        else:
            self._counts.dirs_changed += 1
        node = f'{folder.unfinished_node[:-1]},"subtree":"{tree.hex()}"}}'
        folder.above.nodes.append((folder.name, node))
        folder.nodes = []
        self._entry_done(folder.above)

    def _leave_out(self, folder: _Folder) -> None:
        """A directory that could not be opened is not in the tree: an empty one would be a lie."""
        if folder.above is not None:
            self._entry_done(folder.above)

    # --- roots and the chain above them

    def _plant_roots(self, top: _Folder) -> None:
        chain: dict[bytes, _Folder] = {b"/": top}
        planted = 0
        for root in self._job.source.roots:
            if root == b"/":
                top.pending += 1
                self._push(top, Task(0, b"/", top.parent_tree))
                planted += 1
                continue
            try:
                above = self._folder_above(root, chain)
                planted += self._plant(above, root)
            except OSError as exc:
                self._problems.append(problem_of(root, exc))
        for path in sorted(chain, key=len, reverse=True):
            if path != b"/":
                self._entry_done(chain[path])
        if not planted:
            first = self._problems[0]
            raise SourceError(
                f"{os.fsdecode(first.path)}: {first.reason}", hint="nothing of this source could be read"
            )

    def _folder_above(self, root: bytes, chain: dict[bytes, _Folder]) -> _Folder:
        path = b""
        folder = chain[b"/"]
        for name in root.split(b"/")[1:-1]:
            path += b"/" + name
            if path not in chain:
                chain[path] = self._ancestor(path, folder)
            folder = chain[path]
        return folder

    def _ancestor(self, path: bytes, above: _Folder) -> _Folder:
        with self._job.source.open_root(path) as directory:
            entry = directory.entries[0]
            node = render_node(
                entry,
                self._time_text,
                directory.owner_names(entry.uid, entry.gid),
                extended_attributes=directory.extended_attributes(entry),
            )
        above.pending += 1
        subtree = self._subtree_of(above.parent_tree, entry.name)
        return _Folder(path, above, entry.name, node, subtree, is_new=subtree is None)

    def _subtree_of(self, tree: bytes | None, name: bytes) -> bytes | None:
        if tree is None:
            return None
        try:
            nodes = decode_tree(self._job.repository.load_tree(tree), "parent snapshot")
        except DrctlError:
            return None  # a damaged parent only costs time
        return next((node.subtree for node in nodes if node.name == name), None)

    def _plant(self, above: _Folder, root: bytes) -> int:
        """A root is done by a worker as a part of the directory it lies in."""
        with self._job.source.open_root(root) as directory:
            entries: list[Entry] = list(directory.entries)
        if not entries:
            self._problems.append(Problem(root, Trouble.VANISHED, "no such file or directory"))
            return 0
        above.pending += 1
        self._push(above, Task(0, above.path, above.parent_tree, entries))
        return 1

    # --- large files

    def _read_large(self, folder: _Folder, name: bytes, known: bool) -> None:
        folder.pending += 1
        path = folder.path.rstrip(b"/") + b"/" + name
        self._reading[self._readers.submit(self._large_file, path, known)] = folder

    def _large_file(self, path: bytes, known: bool) -> tuple[bytes, str | None, list[Problem]]:
        name = path.rsplit(b"/", 1)[1]
        try:
            with self._job.source.open_root(path) as directory:
                if not directory.entries:
                    return name, None, [Problem(path, Trouble.VANISHED, "no such file")]
                entry = directory.entries[0]
                reader = directory.open(entry)
                try:
                    parts = read_parts(reader.readinto, reader.hole, reader.skip)
                    content, size = self._chunks.store(parts)
                    changed = reader.changed()
                finally:
                    reader.close()
                node = render_node(
                    entry,
                    LocalTimeText(),
                    directory.owner_names(entry.uid, entry.gid),
                    content=content,
                    size=size,
                    extended_attributes=directory.extended_attributes(entry),
                )
        except OSError as exc:
            return name, None, [problem_of(path, exc)]
        problems = [Problem(path, Trouble.CHANGED, "it changed while being read")] if changed else []
        self._count_large(size, known)
        return name, node, problems

    def _count_large(self, size: int, known: bool) -> None:
        counts = Counts(files_new=not known, files_changed=known, bytes=size)
        self._chunks.count(counts)

    # --- bookkeeping

    def _note(self, counts: Counts, packs: list[StoredPack]) -> None:
        self._counts.add(counts)
        self._index.add(packs)

    def _show(self) -> None:
        now = self._clock.monotonic()
        if now - self._shown_at >= _PROGRESS_EVERY_S:
            self._shown_at = now
            current = os.fsdecode(self._stack[-1].path) if self._stack else ""
            self._emit(Progressed(self._counts.files, self._counts.bytes, current))


def _worker(job: Job, channel: Connection, others: list[Connection]) -> None:
    for other in others:
        other.close()  # or a worker would keep its siblings' pipes open
    serve(job, channel)


def _wait_for_any(futures: dict[Future[tuple[bytes, str | None, list[Problem]]], _Folder]) -> None:
    from concurrent.futures import FIRST_COMPLETED  # noqa: PLC0415
    from concurrent.futures import wait as wait_futures  # noqa: PLC0415

    wait_futures(futures, timeout=0.1, return_when=FIRST_COMPLETED)
