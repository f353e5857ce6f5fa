"""Deciding what a restore has to make: the snapshot's trees walked into one compact table.

Invariant: planning writes nothing. A directory that cannot be read is listed and left out, so that
one damaged tree does not cost the rest; what would take unbounded work (depth, cycles, trees that
repeat themselves) ends the plan.
"""

from __future__ import annotations

import os
import stat
from array import array
from dataclasses import dataclass

from drctl.errors import CorruptError, DrctlError, ExitCode, UsageError
from drctl.repository.crew import Crew
from drctl.repository.extract_walk import (
    Below,
    PartOfTree,
    TreeTask,
    WalkContext,
    add_node,
    read_trees,
    shown,
)
from drctl.repository.ids import short
from drctl.repository.index import BlobTable
from drctl.repository.node_reader import FoundNode, NodeReader
from drctl.repository.node_table import KEPT, LINKED, SCAFFOLD, STAGED, NodeTable
from drctl.repository.repo import Repository
from drctl.repository.selection import Selector, Verdict
from drctl.repository.snapshot import Snapshot

MAX_DEPTH = 4096  # directories below each other; PATH_MAX allows 2048
_TREES_AT_ONCE = 32
_WORTH_FORKING = 128  # directories waiting to be read


@dataclass(frozen=True, slots=True)
class Failure:
    """One entry that is not (wholly) restored, and why. `path` is relative to the target."""

    path: bytes
    message: str
    exit_code: ExitCode = ExitCode.INCOMPLETE

    def describe(self) -> str:
        """One line for people."""
        return f"{shown(self.path)}: {self.message}"


@dataclass(frozen=True, slots=True)
class Deletion:
    """An entry of the target that is not in the snapshot, or stands in the way of one."""

    directory: int
    name: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """What a restore will do. `packs`: number of a pack in the index -> the pieces that are read
    from it, in the order of the tree. `bytes` counts hard-linked files once."""

    snapshot: Snapshot
    nodes: NodeTable
    packs: dict[int, array[int]]
    files: int
    directories: int
    others: int
    bytes: int
    bytes_kept: int
    deletions: tuple[Deletion, ...]
    failures: tuple[Failure, ...]

    @property
    def entries(self) -> int:
        """All that will be there afterwards."""
        return self.files + self.directories + self.others


@dataclass(slots=True)
class _Directory:
    """A directory that is to be read; its number is given once something in it is wanted."""

    above: _Directory | None
    node: FoundNode | None
    tree: bytes
    path: bytes
    depth: int
    verdict: Verdict
    number: int = -1


class PlanBuilder:
    """Walks a snapshot into a `NodeTable`."""

    def __init__(self, repository: Repository, selector: Selector, workers: int | None = None) -> None:
        self.nodes = NodeTable()
        self.failures: list[Failure] = []
        self._repository = repository
        self._selector = selector
        self._workers = workers
        self._links: dict[tuple[int, int], int] = {}
        self._waiting: list[_Directory] = []
        self._reading: dict[int, list[_Directory]] = {}
        self._batches = 0

    def walk(self, snapshot: Snapshot) -> None:
        """Read all that is selected; in worker processes once there is enough to read. CorruptError
        when the root cannot be read, or for work without bound; UsageError when a path that was
        asked for is not in the snapshot."""
        self._waiting = [self._start(snapshot)]
        context = WalkContext(self._repository, self._selector)
        while 0 < len(self._waiting) < _WORTH_FORKING and (task := self._next_task()) is not None:
            self._merge(read_trees(context, task))
        if self._waiting:
            self._repository.storage.close()  # a connection must not be shared by two processes
            with Crew(context, self._workers) as crew:
                for part in crew.run(read_trees, self._next_task):
                    self._merge(part)
        self._selector.check_all_found()

    def selects(self, path: bytes, *, is_directory: bool) -> bool:
        """Whether an entry at this path, relative to the root of the restore but beginning with `/`,
        would be restored if it were in the snapshot."""
        return self._selector.selects(path, is_directory=is_directory)

    def _next_task(self) -> TreeTask | None:
        # the deepest first, so that a tree that repeats itself is met in depth, not in memory
        batch = self._waiting[-_TREES_AT_ONCE:]
        if not batch:
            return None
        del self._waiting[-_TREES_AT_ONCE:]
        for directory in batch:
            if directory.depth > MAX_DEPTH:
                raise CorruptError(f"{shown(directory.path)}...: directories nest deeper than {MAX_DEPTH}")
        self._batches += 1
        self._reading[self._batches] = batch
        return TreeTask(self._batches, [(one.tree, one.path, one.verdict) for one in batch])

    def _merge(self, part: PartOfTree) -> None:
        directories = self._reading.pop(part.task)
        for position, path, error in part.damage:
            if path == directories[position].path and directories[position].depth == 0:
                raise error  # nothing can be restored
            self._fail(path, error)
        self._selector.meet(part.met)
        used = set(part.nodes.parents)
        parents = [self._number(one) if at in used else 0 for at, one in enumerate(directories)]
        base = self.nodes.extend(part.nodes, parents)
        for number, key in part.links:
            self._link(base + number, key)
        self._waiting += reversed([self._enter(directories[found.parent], found) for found in part.below])

    def _enter(self, above: _Directory, found: Below) -> _Directory:
        assert found.node.subtree is not None
        below = _Directory(above, found.node, found.node.subtree, found.path, above.depth + 1, found.verdict)
        if found.verdict.wanted:
            self._number(below)
        return below

    def _number(self, directory: _Directory) -> int:
        """Its number, given now where it has none, and to those above it first."""
        missing = []
        here: _Directory | None = directory
        while here is not None and here.number < 0:
            missing.append(here)
            here = here.above
        for one in reversed(missing):
            assert one.node is not None and one.above is not None
            one.number = add_node(self.nodes, one.above.number, one.node, 0)
            if not one.verdict.wanted:
                self.nodes.flags[one.number] |= SCAFFOLD
        return directory.number

    def _link(self, number: int, key: tuple[int, int]) -> None:
        first = self._links.setdefault(key, number)
        if first != number and _same_file(self.nodes, first, number):
            self.nodes.first_of_link[number] = first
            self.nodes.flags[number] |= LINKED

    def _fail(self, path: bytes, error: DrctlError) -> None:
        relative = path.removeprefix(self._selector.root).lstrip(b"/")
        self.failures.append(Failure(relative, error.message, error.exit_code))

    # --- the way from the snapshot's tree to the root of the restore

    def _start(self, snapshot: Snapshot) -> _Directory:
        """The directory that becomes the target; where the root is one file, the directory it is
        in, of which only that file is wanted."""
        reader = NodeReader()
        tree, node, path = snapshot.tree, None, b"/"
        for name in self._selector.root.split(b"/"):
            if not name:
                continue
            found = reader.read(self._repository.load_tree(tree), f"tree {short(tree)} ({shown(path)})")
            below = next((one for one in found if one.name == name), None)
            here, path = path, path.rstrip(b"/") + b"/" + name
            if below is None or (below.subtree is None and path != self._selector.root):
                raise UsageError(
                    f"no {shown(self._selector.root)!r} in the snapshot",
                    hint="paths are absolute, as the snapshot has them",
                )
            if below.subtree is None:
                path, self._selector = here, self._selector.of_one_file()
                break
            tree, node = below.subtree, below
        return self._root_directory(node, tree, path)

    def _root_directory(self, node: FoundNode | None, tree: bytes, path: bytes) -> _Directory:
        verdict = self._selector.start()
        if node is None or not verdict.wanted:
            self.nodes.add(0, b"", stat.S_IFDIR | 0o700, (os.geteuid(), os.getegid()), 0, 0, 0)
            self.nodes.flags[0] |= SCAFFOLD
        else:
            add_node(self.nodes, 0, node._replace(name=b""), 0)
        return _Directory(None, node, tree, path, 0, verdict, number=0)


def finish_plan(
    repository: Repository, builder: PlanBuilder, snapshot: Snapshot, deletions: tuple[Deletion, ...] = ()
) -> RestorePlan:
    """The plan out of a walked (and perhaps surveyed) table: which pieces come from which pack."""
    nodes = builder.nodes
    packs = _by_pack(nodes, repository.blobs)
    counts = _count(nodes, repository.blobs)
    return RestorePlan(
        snapshot=snapshot,
        nodes=nodes,
        packs=packs,
        files=counts.files,
        directories=counts.directories,
        others=counts.others,
        bytes=counts.bytes,
        bytes_kept=counts.bytes_kept,
        deletions=deletions,
        failures=tuple(builder.failures),
    )


@dataclass(slots=True)
class _Counts:
    files: int = 0
    directories: int = 0
    others: int = 0
    bytes: int = 0
    bytes_kept: int = 0


def _count(nodes: NodeTable, blobs: BlobTable) -> _Counts:
    special = sum(not stat.S_ISREG(nodes[number].mode) for number in nodes.contentless)
    directories = len(nodes.directories) - 1  # the target is not restored
    counts = _Counts(len(nodes) - 1 - directories - special, directories, special)
    flags, reused, plain_length_at = nodes.flags, nodes.piece_reused, blobs.plain_length_at
    for piece, (number, blob) in enumerate(zip(nodes.piece_file, nodes.piece_blob, strict=True)):
        if not flags[number] & LINKED:
            size = plain_length_at(blob)
            counts.bytes += size
            if reused[piece] or flags[number] & KEPT:
                counts.bytes_kept += size
    return counts


def _by_pack(nodes: NodeTable, blobs: BlobTable) -> dict[int, array[int]]:
    """Pieces by pack. A file whose content comes from several places is marked as staged."""
    packs: dict[int, array[int]] = {}
    flags, reused, pack_number_at = nodes.flags, nodes.piece_reused, blobs.pack_number_at
    last_file, last_pack = -1, -1
    for piece, (number, blob) in enumerate(zip(nodes.piece_file, nodes.piece_blob, strict=True)):
        if flags[number] & (LINKED | KEPT):
            continue
        pack = -1 if reused[piece] else pack_number_at(blob)
        if number == last_file and pack != last_pack:
            flags[number] |= STAGED
        last_file, last_pack = number, pack
        if pack < 0:
            flags[number] |= STAGED
        else:
            pieces = packs.get(pack)
            if pieces is None:
                pieces = packs[pack] = array("I")
            pieces.append(piece)
    return packs


def _same_file(nodes: NodeTable, one: int, other: int) -> bool:
    """Whether two entries with one inode have one content: a file that was replaced while it was
    backed up has not, and a hostile snapshot may claim anything."""
    first, second = nodes[one], nodes[other]
    if (first.mode, first.pieces, first.size) != (second.mode, second.pieces, second.size):
        return False
    if nodes.extra_of(one) != nodes.extra_of(other):
        return False
    return (
        nodes.piece_blob[first.first : first.first + first.pieces]
        == nodes.piece_blob[second.first : second.first + second.pieces]
    )
