"""A worker process of a backup: it lists directories and stores small files whole.

Invariant: a worker writes packs only; it never writes an index or a snapshot, so that whatever
happens to it leaves at worst packs that nothing refers to.
"""

from __future__ import annotations

import errno
import gc
import stat
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import NamedTuple, cast

from drctl.errors import DrctlError
from drctl.ports import Directory, Entry, Reader, SwappedError
from drctl.repository.archive_job import (
    Answer,
    Child,
    Counts,
    Job,
    LocalTimeText,
    Problem,
    Task,
    Trouble,
    below,
)
from drctl.repository.chunker import MIN_CHUNK, split
from drctl.repository.crew import become_worker
from drctl.repository.earlier_trees import EarlierTrees, RawNode
from drctl.repository.ids import hash_of
from drctl.repository.pack import BlobType
from drctl.repository.packer import Packer
from drctl.repository.tree import (
    join_tree,
    render_node,
)
from drctl.repository.uploads import Uploads

_PART = 2048  # entries of a huge directory that one worker takes at a time
_READ = 2**20
Attributes = Sequence[tuple[bytes, bytes]]


def serve(job: Job, channel: Connection, parent: int) -> None:
    """Answer tasks until None comes or the other end is gone."""
    become_worker(parent)
    gc.set_threshold(200_000, 20, 20)  # nothing here makes cycles; looking for them took a tenth
    worker = TreeWorker(job)
    try:
        while (task := channel.recv()) is not None:
            channel.send(worker.process(task))
        channel.send(worker.finish())
    except DrctlError as exc:
        channel.send(exc)
    except (EOFError, BrokenPipeError):
        return  # the main process is gone; so is this run


class _Found(NamedTuple):
    """What a directory holds, as far as its worker comes; the fields are those of `Answer`."""

    nodes: list[tuple[bytes, str]]
    children: list[Child]
    large: list[tuple[Entry, bool]]


class TreeWorker:
    """Turns directories into trees. One per process."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._uploads = Uploads(job.repository.save_pack)
        self._data = self._packer(BlobType.DATA)
        self._trees = self._packer(BlobType.TREE)
        self._cutter = job.make_cutter()
        self._time_text = LocalTimeText()
        self._earlier = EarlierTrees(job, self._time_text)
        self._buffer = memoryview(bytearray(MIN_CHUNK + 1))
        self._problems: list[Problem] = []
        self._counts = Counts()

    def _packer(self, kind: BlobType) -> Packer:
        repository = self._job.repository
        return Packer(kind, repository.sealer(), repository.codec(), self._uploads.submit)

    def process(self, task: Task) -> Answer:
        """Do one task."""
        try:
            with self._job.open(task.path, task.part[0].name if task.part else None) as directory:
                return self._directory(task, directory)
        except OSError as exc:
            self._problems.append(problem_of(task.path, exc))
            return self._answer(task.number, opened=False)

    def finish(self) -> Answer:
        """Store what is left over."""
        self._data.flush()
        self._trees.flush()
        packs = self._uploads.finish()  # first: an answer takes along what is stored by then
        return self._answer(-1)._replace(packs=packs)

    def _answer(self, number: int, *, opened: bool = True) -> Answer:
        problems, self._problems = self._problems, []
        counts, self._counts = self._counts, Counts()
        packs = self._uploads.take_stored()
        return Answer(number, None, [], [], [], [], problems, counts, packs, opened=opened)

    def _directory(self, task: Task, directory: Directory) -> Answer:
        entries, parts = self._share(task, directory)
        whole = task.part is None and not parts
        fingerprint = self._earlier.fingerprint(task.path, entries) if whole else b""
        if fingerprint and (known := self._earlier.recognise(fingerprint)) is not None:
            return self._same_tree(task, entries, known, fingerprint)
        parent = self._earlier.nodes(task.parent_tree)
        if whole and task.parent_tree and self._earlier.is_same_tree(directory, entries, parent):
            return self._same_tree(task, entries, task.parent_tree, fingerprint)
        found = _Found([], [], [])
        for entry in entries:
            try:
                self._entry(task, directory, entry, parent.get(entry.name), found)
            except OSError as exc:
                self._problems.append(problem_of(below(task.path) + entry.name, exc))
        if found.children or found.large or not whole:
            return self._answer(task.number)._replace(parts=parts, **found._asdict())
        tree = self._store_tree(found.nodes)
        problem_free = len(found.nodes) == len(entries) and not self._problems
        return self._answer(task.number)._replace(tree=tree, fingerprint=fingerprint if problem_free else b"")

    def _share(self, task: Task, directory: Directory) -> tuple[list[Entry], list[list[Entry]]]:
        """The entries to do now, and those of a huge directory to be asked for in further tasks."""
        if task.part is not None:
            return task.part, []
        entries = list(directory.entries)
        for name, reason in directory.unreadable:
            self._problems.append(Problem(below(task.path) + name, Trouble.UNREADABLE, reason))
        if len(entries) <= 2 * _PART:
            return entries, []
        return entries[:_PART], [entries[at : at + _PART] for at in range(_PART, len(entries), _PART)]

    def _entry(
        self, task: Task, directory: Directory, entry: Entry, before: RawNode | None, found: _Found
    ) -> None:
        if stat.S_ISDIR(entry.mode):
            found.children.append(self._child(directory, entry, before))
        elif not stat.S_ISREG(entry.mode):
            found.nodes.append((entry.name, self._special(directory, entry)))
        elif (node := self._file(task.path, directory, entry, before)) is not None:
            found.nodes.append((entry.name, node))
        else:
            found.large.append((entry, before is not None))

    def _same_tree(self, task: Task, entries: list[Entry], tree: bytes, fingerprint: bytes) -> Answer:
        for entry in entries:
            if stat.S_ISREG(entry.mode):
                self._counts.files_unmodified += 1
                self._counts.bytes += entry.size
        return self._answer(task.number)._replace(tree=tree, fingerprint=fingerprint)

    def _store_tree(self, nodes: list[tuple[bytes, str]]) -> bytes:
        """Store a directory's tree unless the repository has it; returns its id."""
        tree = join_tree([node for _, node in nodes])
        identifier = hash_of(tree)
        if self._is_new(identifier, BlobType.TREE):
            self._counts.tree_blobs += 1
            self._counts.bytes_added += len(tree)
            self._counts.bytes_stored += self._trees.add(identifier, tree)
        return identifier

    # --- the entries

    def _child(self, directory: Directory, entry: Entry, before: RawNode | None) -> Child:
        parent_tree = None
        if before is not None and before.get("type") == "dir" and isinstance(before.get("subtree"), str):
            parent_tree = bytes.fromhex(str(before["subtree"]))
        attributes = directory.extended_attributes(entry)
        node = render_node(
            entry,
            self._time_text,
            directory.owner_names(entry.uid, entry.gid),
            extended_attributes=attributes,
        )
        return Child(entry.name, node, parent_tree, before is None)

    def _special(self, directory: Directory, entry: Entry) -> str:
        target = directory.read_link(entry) if stat.S_ISLNK(entry.mode) else None
        return render_node(
            entry,
            self._time_text,
            directory.owner_names(entry.uid, entry.gid),
            link_target=target,
            extended_attributes=directory.extended_attributes(entry),
        )

    def _file(self, path: bytes, directory: Directory, entry: Entry, before: RawNode | None) -> str | None:
        """The node of a regular file, or None when it is left to the main process."""
        if before is not None and self._earlier.has(entry, before):
            return self._kept_file(directory, entry, before)
        if entry.size >= self._job.inline_limit:
            return None
        content, size, attributes, settled = self._read(directory, entry)
        if not settled:  # once more: most changes are over by then
            content, size, attributes, settled = self._read(directory, entry)
        if not settled:
            self._problems.append(
                Problem(below(path) + entry.name, Trouble.CHANGED, "it changed while being read, twice")
            )
        if before is None:
            self._counts.files_new += 1
        else:
            self._counts.files_changed += 1
        self._counts.bytes += size
        return render_node(
            entry,
            self._time_text,
            directory.owner_names(entry.uid, entry.gid),
            content=content,
            size=size,
            extended_attributes=attributes,
        )

    def _kept_file(self, directory: Directory, entry: Entry, before: RawNode) -> str:
        """The node of a file whose content the parent has."""
        self._counts.files_unmodified += 1
        self._counts.bytes += entry.size
        # ctime did not change, so neither did the attributes
        attributes = directory.extended_attributes(entry) if before.get("extended_attributes") else ()
        return render_node(
            entry,
            self._time_text,
            directory.owner_names(entry.uid, entry.gid),
            content=cast("list[str]", before.get("content") or []),
            extended_attributes=attributes,
        )

    # --- content

    def _read(self, directory: Directory, entry: Entry) -> tuple[list[str], int, Attributes, bool]:
        """Content, length, attributes, and whether all of it is of one moment."""
        reader = directory.open(entry)
        try:
            attributes = reader.extended_attributes()
            content, size = self._content(reader, entry.size)
            return content, size, attributes, not reader.changed()
        finally:
            reader.close()

    def _content(self, reader: Reader, expected: int) -> tuple[list[str], int]:
        if expected > MIN_CHUNK:
            return self._chunked(split(self._cutter, _parts(reader)))
        filled = 0
        while filled < len(self._buffer):
            count = reader.readinto(self._buffer[filled:])
            if count == 0:
                break
            filled += count
        else:  # it grew past one chunk meanwhile
            head = iter([bytes(self._buffer)])
            return self._chunked(split(self._cutter, _chain(head, _parts(reader))))
        if not filled:
            return [], 0
        return [self._store(self._buffer[:filled])], filled

    def _chunked(self, chunks: Iterator[bytes]) -> tuple[list[str], int]:
        content, size = [], 0
        for chunk in chunks:
            content.append(self._store(memoryview(chunk)))
            size += len(chunk)
        return content, size

    def _store(self, plain: memoryview) -> str:
        identifier = hash_of(plain)
        if self._is_new(identifier, BlobType.DATA):
            self._counts.data_blobs += 1
            self._counts.bytes_added += len(plain)
            self._counts.bytes_stored += self._data.add(identifier, plain)
        return identifier.hex()

    def _is_new(self, identifier: bytes, kind: BlobType) -> bool:
        return not self._job.repository.blobs.has(identifier, kind) and self._job.seen.claim(identifier, kind)


def _parts(reader: Reader) -> Iterator[bytes]:
    buffer = bytearray(_READ)
    with memoryview(buffer) as view:
        while count := reader.readinto(view):
            yield bytes(view[:count])


def _chain(first: Iterator[bytes], then: Iterator[bytes]) -> Iterator[bytes]:
    yield from first
    yield from then


def problem_of(path: bytes, error: OSError) -> Problem:
    """An operating system's error as a problem of the source."""
    if isinstance(error, SwappedError):
        return Problem(path, Trouble.SWAPPED, str(error))
    reason = error.strerror or str(error)
    if error.errno == errno.ENOENT:
        return Problem(path, Trouble.VANISHED, reason)
    return Problem(path, Trouble.UNREADABLE, reason)
