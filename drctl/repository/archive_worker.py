"""A worker process of a backup: it lists directories and stores small files whole.

Invariant: a worker writes packs only; it never writes an index or a snapshot, so that whatever
happens to it leaves at worst packs that nothing refers to.
"""

from __future__ import annotations

import ctypes
import errno
import signal
import stat
from collections.abc import Iterator
from multiprocessing.connection import Connection

from drctl.errors import CorruptError, DrctlError
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
from drctl.repository.ids import hash_of
from drctl.repository.pack import BlobType
from drctl.repository.packer import Packer
from drctl.repository.tree import join_tree, parse_time_ns, raw_nodes, render_node, unquote_name
from drctl.repository.uploads import Uploads

_PART = 2048  # entries of a huge directory that one worker takes at a time
_READ = 2**20
_PR_SET_PDEATHSIG = 1
RawNode = dict[str, object]


def serve(job: Job, channel: Connection) -> None:
    """Answer tasks until None comes or the other end is gone."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process decides what Ctrl-C means
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    worker = TreeWorker(job)
    try:
        while (task := channel.recv()) is not None:
            channel.send(worker.process(task))
        channel.send(worker.finish())
    except DrctlError as exc:
        channel.send(exc)
    except (EOFError, BrokenPipeError):
        return  # the main process is gone; so is this run


class TreeWorker:
    """Turns directories into trees. One per process."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._uploads = Uploads(job.repository.save_pack)
        self._data = self._packer(BlobType.DATA)
        self._trees = self._packer(BlobType.TREE)
        self._cutter = job.make_cutter()
        self._time_text = LocalTimeText()
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
        return self._answer(-1)._replace(packs=self._uploads.finish())

    def _answer(self, number: int, *, opened: bool = True) -> Answer:
        problems, self._problems = self._problems, []
        counts, self._counts = self._counts, Counts()
        return Answer(number, None, [], [], [], [], problems, counts, self._uploads.take_stored(), opened)

    def _directory(self, task: Task, directory: Directory) -> Answer:
        parts: list[list[Entry]] = []
        if task.part is not None:
            entries = task.part
        else:
            entries = list(directory.entries)
            for name, reason in directory.unreadable:
                self._problems.append(Problem(below(task.path) + name, Trouble.UNREADABLE, reason))
            if len(entries) > 2 * _PART:
                parts = [entries[at : at + _PART] for at in range(_PART, len(entries), _PART)]
                entries = entries[:_PART]
        parent = self._parent_nodes(task.parent_tree)
        nodes: list[tuple[bytes, str]] = []
        children: list[Child] = []
        large: list[tuple[Entry, bool]] = []
        for entry in entries:
            before = parent.get(entry.name)
            kind = entry.mode & 0o170000
            try:
                if kind == stat.S_IFREG:
                    node = self._file(directory, task.path, entry, before)
                    if node is None:
                        large.append((entry, before is not None))
                    else:
                        nodes.append((entry.name, node))
                elif kind == stat.S_IFDIR:
                    children.append(self._child(directory, entry, before))
                else:
                    nodes.append((entry.name, self._special(directory, entry)))
            except OSError as exc:
                self._problems.append(problem_of(below(task.path) + entry.name, exc))
        if children or large or parts or task.part is not None:
            answer = self._answer(task.number)
            return answer._replace(nodes=nodes, children=children, large=large, parts=parts)
        tree = self._store_tree(nodes)
        return self._answer(task.number)._replace(tree=tree)

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

    def _parent_nodes(self, tree: bytes | None) -> dict[bytes, RawNode]:
        if tree is None:
            return {}
        where = f"tree {tree.hex()[:8]} of the parent snapshot"
        try:
            nodes = raw_nodes(self._job.repository.load_tree(tree), where)
            return {unquote_name(str(node["name"]), where): node for node in nodes}
        except (CorruptError, KeyError):
            return {}  # a damaged parent costs reading the files again, which also heals it

    def _child(self, directory: Directory, entry: Entry, before: RawNode | None) -> Child:
        parent_tree = None
        if before is not None and before.get("type") == "dir" and isinstance(before.get("subtree"), str):
            parent_tree = bytes.fromhex(str(before["subtree"]))
        attributes = self._attributes(directory, entry)
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
            extended_attributes=self._attributes(directory, entry),
        )

    def _attributes(self, directory: Directory, entry: Entry) -> list[tuple[bytes, bytes]]:
        return list(directory.extended_attributes(entry))

    def _file(self, directory: Directory, path: bytes, entry: Entry, before: RawNode | None) -> str | None:
        """The node of a regular file, or None when it is left to the main process."""
        if before is not None and self._is_unchanged(entry, before):
            node = self._unchanged_file(directory, entry, before)
            if node is not None:
                return node
        if entry.size >= self._job.inline_limit:
            return None
        attributes = self._attributes(directory, entry)
        content, size, settled = self._read(directory, entry)
        if not settled:  # once more: most changes are over by then
            content, size, settled = self._read(directory, entry)
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

    def _is_unchanged(self, entry: Entry, before: RawNode) -> bool:
        if (entry.ctime_ns or entry.mtime_ns) >= self._job.trust_before_ns:
            return False
        return (
            before.get("size", 0) == entry.size
            and before.get("type") == "file"
            and before.get("inode", 0) == entry.inode
            and self._same_time(before.get("ctime"), entry.ctime_ns)
            and self._same_time(before.get("mtime"), entry.mtime_ns)
        )

    def _same_time(self, text: object, nanoseconds: int) -> bool:
        if text == self._time_text(nanoseconds):
            return True
        try:  # the same instant, written in another time zone
            return isinstance(text, str) and parse_time_ns(text) == nanoseconds
        except CorruptError:
            return False

    def _unchanged_file(self, directory: Directory, entry: Entry, before: RawNode) -> str | None:
        content = before.get("content") or []
        blobs = self._job.repository.blobs
        if not isinstance(content, list) or not all(
            blobs.has(bytes.fromhex(item), BlobType.DATA) for item in content
        ):
            return None  # a blob is gone from the repository: reading the file again heals it
        self._counts.files_unmodified += 1
        self._counts.bytes += entry.size
        # ctime did not change, so neither did the attributes
        attributes = self._attributes(directory, entry) if before.get("extended_attributes") else ()
        return render_node(
            entry,
            self._time_text,
            directory.owner_names(entry.uid, entry.gid),
            content=content,
            extended_attributes=attributes,
        )

    # --- content

    def _read(self, directory: Directory, entry: Entry) -> tuple[list[str], int, bool]:
        reader = directory.open(entry)
        try:
            content, size = self._content(reader, entry.size)
            return content, size, not reader.changed()
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
