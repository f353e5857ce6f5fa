"""Backing a source up: directories go to worker processes, large files to threads, trees come together.

The scheduler is a depth-first stack of directories with a bound on what is in flight. Invariant:
`archive_tree` and `archive_stream` return only when every pack they refer to is stored and named by
an index; only then may the caller write the snapshot.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

from drctl.domain.events import Emit, Progressed
from drctl.errors import DrctlError, SourceError
from drctl.ports import Clock, Entry
from drctl.repository.archive_job import Answer, Counts, Job, LocalTimeText, Problem, Task, Trouble
from drctl.repository.archive_worker import problem_of
from drctl.repository.fingerprints import MAX_DIRECTORIES
from drctl.repository.folders import Folder, Folders
from drctl.repository.ids import hash_of
from drctl.repository.index_writer import IndexWriter
from drctl.repository.large_files import LargeFiles
from drctl.repository.pack import BlobType
from drctl.repository.packer import Packer
from drctl.repository.repo import Repository
from drctl.repository.seen import SeenBlobs
from drctl.repository.tree import decode_tree, render_node
from drctl.repository.uploads import StoredPack, Uploads
from drctl.repository.worker_pool import WorkerPool

_PROGRESS_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class Archived:
    """What became of a source: the root tree, and everything that was not as it should be."""

    tree: bytes
    counts: Counts
    problems: tuple[Problem, ...]
    fingerprints: list[bytes] = field(default_factory=list)  # each with its tree; for the next run


@dataclass(frozen=True, slots=True)
class Watch:
    """How a run is observed and stopped. `check` is called often, and raises to abort (a lost lock,
    a request to stop); `forked` once the workers run, when threads may be started."""

    clock: Clock
    emit: Emit
    check: Callable[[], None]
    forked: Callable[[], None]


def archive_tree(job: Job, watch: Watch, parent_tree: bytes | None = None) -> Archived:
    """Store everything in the job's source. Errors of single entries end up in `problems`;
    SourceError when none of the roots could be read."""
    pool = WorkerPool(job)
    try:
        watch.forked()
        run = _Run(job, watch, pool, parent_tree)
        try:
            return run.run()
        finally:
            run.abandon()
    finally:
        pool.close()


class TreeStore:
    """Stores trees of the main process, each once."""

    def __init__(self, repository: Repository, seen: SeenBlobs, counts: Counts) -> None:
        self._repository = repository
        self._seen = seen
        self._counts = counts
        self._uploads = Uploads(repository.save_pack, threads=1)
        self._packer = Packer(BlobType.TREE, repository.sealer(), repository.codec(), self._uploads.submit)

    def store(self, tree: bytes) -> bytes:
        """Store a tree unless the repository or this run has it; returns its id."""
        identifier = hash_of(tree)
        if not self._repository.blobs.has(identifier, BlobType.TREE) and self._seen.claim(
            identifier, BlobType.TREE
        ):
            self._counts.tree_blobs += 1
            self._counts.bytes_added += len(tree)
            self._counts.bytes_stored += self._packer.add(identifier, tree)
        return identifier

    def finish(self) -> list[StoredPack]:
        """Store what is left over and wait for it."""
        self._packer.flush()
        return self._uploads.finish()

    def abandon(self) -> None:
        """Start nothing more, wait for what runs."""
        self._uploads.abandon()


class _Run:
    def __init__(self, job: Job, watch: Watch, pool: WorkerPool, parent_tree: bytes | None) -> None:
        self._job = job
        self._watch = watch
        self._pool = pool
        self._counts = Counts()
        self._problems: list[Problem] = []
        self._fingerprints: list[bytes] = []
        self._stack: list[Task] = []
        self._numbers = count()
        self._asked: dict[int, tuple[Folder, Task]] = {}
        self._shown_at = 0.0
        self._index = IndexWriter(job.repository, watch.clock, watch.check)
        self._trees = TreeStore(job.repository, job.seen, self._counts)
        self._large = LargeFiles(job)
        self._folders = Folders(parent_tree, self._trees.store, self._counts)

    def run(self) -> Archived:
        """The whole course."""
        for folder, entries in plant_roots(self._job, self._folders, self._problems):
            self._ask(folder, entries)
        while self._folders.root_tree is None:
            self._watch.check()
            self._pool.offer(self._stack)
            self._collect()
            self._show()
        for answer in self._pool.finish():
            self._note(answer.counts, answer.packs)
        self._note(*self._large.finish())
        self._index.add(self._trees.finish())
        self._index.finish(self._counts.data_blobs + self._counts.tree_blobs)
        self._watch.emit(Progressed(self._counts.files, self._counts.bytes))
        return Archived(self._folders.root_tree, self._counts, tuple(self._problems), self._fingerprints)

    def abandon(self) -> None:
        """End the threads; after a failure what is being stored is waited for."""
        self._large.abandon()
        self._trees.abandon()

    def _ask(self, folder: Folder, part: list[Entry] | None = None) -> None:
        number = next(self._numbers)
        task = Task(number, folder.path, folder.parent_tree, part)
        self._asked[number] = (folder, task)
        self._stack.append(task)

    def _collect(self) -> None:
        if self._pool.busy:
            for answer in self._pool.answers(0.02 if self._large.busy else 0.5):
                self._take(answer)
        elif not self._large.busy:
            raise DrctlError("internal error: a directory waits for something that nobody does")
        if self._large.busy:
            for file in self._large.done(0 if self._pool.busy else 0.1):
                if file.problem:
                    self._problems.append(file.problem)
                if file.node:
                    file.folder.nodes.append((file.name, file.node))
                self._folders.one_done(file.folder)
        self._note(*self._large.take_stored())

    def _take(self, answer: Answer) -> None:
        folder, task = self._asked.pop(answer.number)
        self._note(answer.counts, answer.packs)
        self._problems += answer.problems
        if answer.tree is not None:
            if answer.fingerprint and len(self._fingerprints) <= MAX_DIRECTORIES:
                self._fingerprints.append(answer.fingerprint + answer.tree)
            self._folders.finish(folder, answer.tree)
            return
        if not answer.opened and task.part is None:
            if folder.above is None:
                raise SourceError(f"/: {answer.problems[0].reason}")
            self._folders.leave_out(folder)
            return
        folder.nodes += answer.nodes
        for part in answer.parts:
            folder.pending += 1
            self._ask(folder, part)
        for child in answer.children:
            self._ask(self._folders.begin(folder, child.name, child.unfinished_node, child.parent_tree))
        for entry, known in answer.large:
            folder.pending += 1
            self._large.add(folder, entry, known)
        self._folders.one_done(folder)

    def _note(self, counts: Counts, packs: list[StoredPack]) -> None:
        self._counts.add(counts)
        self._index.add(packs)

    def _show(self) -> None:
        now = self._watch.clock.monotonic()
        if now - self._shown_at >= _PROGRESS_EVERY_S:
            self._shown_at = now
            current = os.fsdecode(self._stack[-1].path) if self._stack else ""
            self._watch.emit(Progressed(self._counts.files, self._counts.bytes, current))


# --- the roots, and the chain of directories above them


def plant_roots(
    job: Job, folders: Folders, problems: list[Problem]
) -> Iterator[tuple[Folder, list[Entry] | None]]:
    """The first tasks: each root as a part of the directory that holds it. SourceError when there
    are none."""
    chain = {b"/": folders.top}
    planted = 0
    for root in job.source.roots:
        if root == b"/":
            planted += 1
            folders.top.pending += 1
            yield folders.top, None
            continue
        try:
            above = _folder_above(job, folders, root, chain)
            with job.source.open_root(root) as directory:
                entries = list(directory.entries)
                problems += [Problem(root, Trouble.UNREADABLE, reason) for _, reason in directory.unreadable]
        except OSError as exc:
            # a path that the plan names and that is not there is missing, not just gone meanwhile
            problems.append(Problem(root, Trouble.UNREADABLE, problem_of(root, exc).reason))
            continue
        if entries:
            planted += 1
            above.pending += 1
            yield above, entries
    if not planted:
        raise _nothing_there(problems)
    for path in sorted(chain, key=len, reverse=True):
        folders.one_done(chain[path])  # the roots are all they wait for


def _nothing_there(problems: Sequence[Problem]) -> SourceError:
    first = problems[0]
    return SourceError(
        f"{os.fsdecode(first.path)}: {first.reason}", hint="nothing of this source could be read"
    )


def _folder_above(job: Job, folders: Folders, root: bytes, chain: dict[bytes, Folder]) -> Folder:
    folder = folders.top
    for name in root.split(b"/")[1:-1]:
        path = folder.path_of(name)
        if path not in chain:
            chain[path] = _ancestor(job, folders, path, folder)
        folder = chain[path]
    return folder


def _ancestor(job: Job, folders: Folders, path: bytes, above: Folder) -> Folder:
    with job.source.open_root(path) as directory:
        entry = directory.entries[0]
        node = render_node(
            entry,
            LocalTimeText(),
            directory.owner_names(entry.uid, entry.gid),
            extended_attributes=directory.extended_attributes(entry),
        )
    return folders.begin(above, entry.name, node, subtree_of(job.repository, above.parent_tree, entry.name))


def subtree_of(repository: Repository, tree: bytes | None, name: bytes) -> bytes | None:
    """What a parent snapshot's tree has under a name; None where it has none or cannot be read,
    which only costs time."""
    if tree is None:
        return None
    try:
        nodes = decode_tree(repository.load_tree(tree), "parent snapshot")
    except DrctlError:
        return None
    return next((node.subtree for node in nodes if node.name == name), None)
