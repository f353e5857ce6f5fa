"""Reading the trees of a snapshot, some at a time, so that several processes can.

Invariant: what is returned was decoded and checked (`node_reader`) and its content found in the
index; a tree or an entry that is damaged is told and costs only itself.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass, field

from drctl.errors import CorruptError
from drctl.repository.ids import short
from drctl.repository.node_reader import FoundNode, NodeReader
from drctl.repository.node_table import NO_EXTRA, NodeTable
from drctl.repository.pack import BlobType
from drctl.repository.repo import Repository
from drctl.repository.selection import Selector, Verdict

_RESTORABLE = frozenset({"file", "dir", "symlink", "dev", "chardev", "fifo", "socket"})


@dataclass(frozen=True, slots=True)
class WalkContext:
    """What reading needs; workers inherit it."""

    repository: Repository
    selector: Selector
    reader: NodeReader = field(default_factory=NodeReader)


@dataclass(frozen=True, slots=True)
class TreeTask:
    """Trees to read: id, path and verdict of each directory."""

    number: int
    trees: list[tuple[bytes, bytes, Verdict]]


@dataclass(frozen=True, slots=True)
class Below:
    """A directory that was found and is to be read; `parent` is a position in the task."""

    parent: int
    node: FoundNode
    path: bytes
    verdict: Verdict


@dataclass(slots=True)
class PartOfTree:
    """What was read for one task. The entries' parents, and the first part of `damage`, are
    positions in the task; `met` are paths that were asked for by name."""

    task: int
    nodes: NodeTable = field(default_factory=NodeTable)
    links: list[tuple[int, tuple[int, int]]] = field(default_factory=list)
    below: list[Below] = field(default_factory=list)
    damage: list[tuple[int, bytes, CorruptError]] = field(default_factory=list)
    met: frozenset[bytes] = frozenset()


def read_trees(context: WalkContext, task: TreeTask) -> PartOfTree:
    """Read a task's trees. UnreachableError and the like are raised."""
    collecting = gc.isenabled()
    gc.disable()  # nothing here makes cycles; looking for them in parsed trees costs a fifth
    try:
        return _Reading(context, task.number).read(task)
    finally:
        if collecting:
            gc.enable()


class _Reading:
    """One task's work."""

    def __init__(self, context: WalkContext, number: int) -> None:
        self._repository = context.repository
        self._blobs = context.repository.blobs
        self._selector = context.selector
        self._reader = context.reader
        self._part = PartOfTree(number)

    def read(self, task: TreeTask) -> PartOfTree:
        for position, (tree, path, verdict) in enumerate(task.trees):
            try:
                where = f"tree {short(tree)} ({shown(path)})"
                found = self._reader.read(self._repository.load_tree(tree), where)
            except CorruptError as exc:
                self._part.damage.append((position, path, exc))
                continue
            for node in found:
                self._take(position, path, verdict, node)
        self._part.met = self._selector.met()
        return self._part

    def _take(self, position: int, directory: bytes, above: Verdict, node: FoundNode) -> None:
        """Paths are only put together where they are looked at: most of a snapshot is plain files that
        are all wanted."""
        path, verdict = b"", above
        is_directory = node.type == "dir"
        if is_directory or not self._selector.takes_all:
            path = _join(directory, node.name)
            verdict = self._selector.judge(path, above, is_directory=is_directory)
        try:
            if is_directory and verdict.descend:
                if node.subtree is None:
                    raise CorruptError("a directory without a tree")
                self._part.below.append(Below(position, node, path, verdict))
            elif verdict.wanted and not is_directory:
                self._add(position, node)
        except CorruptError as exc:
            self._part.damage.append((position, _join(directory, node.name), exc))

    def _add(self, position: int, node: FoundNode) -> None:
        if node.type not in _RESTORABLE:
            raise CorruptError(f"of the unknown type {node.type[:40]!r}")
        blobs, offsets = self._pieces(node)
        number = add_node(self._part.nodes, position, node, len(blobs))
        self._part.nodes.add_pieces(number, blobs, offsets)
        if node.link_key is not None:
            self._part.links.append((number, node.link_key))

    def _pieces(self, node: FoundNode) -> tuple[list[int], list[int]]:
        if node.type != "file":
            return [], []
        blobs, offsets, total = [], [], 0
        for identifier in node.content:
            blob = self._blobs.position(identifier, BlobType.DATA)
            if blob < 0:
                raise CorruptError(f"data blob {short(identifier)} of it is in no index")
            blobs.append(blob)
            offsets.append(total)
            total += self._blobs.plain_length_at(blob)
        if total != node.size:
            raise CorruptError(f"said to have {node.size} bytes, its content has {total}")
        return blobs, offsets


def add_node(nodes: NodeTable, parent: int, node: FoundNode, pieces: int) -> int:
    """Record an entry; its number."""
    owner = (node.uid, node.gid)
    number = nodes.add(parent, node.name, node.mode, owner, node.mtime_ns, node.size, pieces)
    if node.extra is not NO_EXTRA:
        nodes.extras[number] = node.extra
    return number


def _join(directory: bytes, name: bytes) -> bytes:
    return directory.rstrip(b"/") + b"/" + name


def shown(path: bytes) -> str:
    """A path as messages give it."""
    return path[:200].decode("utf-8", "backslashreplace")
