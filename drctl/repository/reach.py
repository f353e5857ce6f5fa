"""Which blobs the snapshots need: trees are walked level by level, by several processes.

Invariant: every tree is visited once, so cycles and depth cost nothing; a byte a blob in shared
memory is all that is kept. What a tree refers to and no index names becomes a finding: whoever
deletes by this must refuse to when there is one.
"""

from __future__ import annotations

import mmap
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from drctl.errors import AbsentError, CorruptError, StorageError
from drctl.repository.crew import Crew
from drctl.repository.finding import Finding, damage, damage_from
from drctl.repository.ids import short
from drctl.repository.index import BlobTable
from drctl.repository.pack import BlobType, PackedBlob
from drctl.repository.repo import FileKind, Repository
from drctl.repository.tree_links import Links, decode_links

_BATCH = 256  # trees a task
_GAP = 128 * 2**10  # bytes that are read along rather than asking the storage once more
_STRETCH = 16 * 2**20  # bytes at most in one read
HINT_REPAIR = "restore what can be from other copies; forget the snapshots that need it"


class Marks:
    """One byte for every blob of a table, shared with forked processes. Truthy: needed."""

    def __init__(self, count: int) -> None:
        self._bytes = mmap.mmap(-1, max(count, 1))
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, position: int) -> int:
        return self._bytes[position]

    def add(self, position: int) -> bool:
        """Mark it; whether it was not marked before (a mark of another value stays)."""
        if self._bytes[position]:
            return False
        self._bytes[position] = 1
        return True

    def positions(self, value: int) -> Iterator[int]:
        """Those that bear a mark."""
        position = -1
        while (position := self._bytes.find(bytes([value]), position + 1, self._count)) >= 0:
            yield position

    def replace(self, old: int, new: int) -> None:
        """Turn all marks of one value into another; 0 takes them away."""
        table = bytes(new if value == old else value for value in range(256))
        self._bytes[: self._count] = self._bytes[: self._count].translate(table)

    def count(self) -> int:
        """How many are marked."""
        return self._bytes[: self._count].count(1)


@dataclass(frozen=True)
class Walk:
    """What the walking processes share."""

    repository: Repository
    table: BlobTable
    marks: Marks


W = TypeVar("W", bound=Walk)


class Seen(NamedTuple):
    """A task's result: trees met for the first time, and what is wrong."""

    subtrees: array[int]
    findings: list[Finding]


def start_walk(repository: Repository, table: BlobTable) -> Walk:
    """With nothing marked yet."""
    return Walk(repository, table, Marks(len(table)))


def mark_reachable(
    crew: Crew[W],
    walk: W,
    roots: Iterable[tuple[str, bytes]],
    progress: Callable[[int], None] = lambda trees: None,
) -> list[Finding]:
    """Mark every blob that the trees of `roots` (a snapshot's file, its tree) need, with a crew made
    of that walk. `progress` is told the number of trees found. Findings come in no order, each once."""
    frontier = Frontier(walk.table)
    findings: list[Finding] = []
    for file, tree in roots:
        position = walk.table.position(tree, BlobType.TREE)
        if position < 0:
            findings.append(damage(file, f"its tree {short(tree)} is in no index", HINT_REPAIR))
        elif walk.marks.add(position):
            frontier.add(position)
    trees = 0
    for seen in crew.run(_visit, frontier.take):
        trees += len(seen.subtrees)
        findings.extend(seen.findings)
        for position in seen.subtrees:
            frontier.add(position)
        progress(trees)
    return list(dict.fromkeys(findings))


class Frontier:
    """Trees to visit, by the pack they lie in, so that one task reads one pack."""

    def __init__(self, table: BlobTable) -> None:
        self._table = table
        self._waiting: dict[int, array[int]] = {}

    def add(self, position: int) -> None:
        """Visit it later."""
        self._waiting.setdefault(self._table.pack_number_at(position), array("I")).append(position)

    def take(self) -> array[int] | None:
        """Some trees of one pack; None when there is none."""
        if not self._waiting:
            return None
        pack = next(iter(self._waiting))
        waiting = self._waiting.pop(pack)
        if len(waiting) > _BATCH:
            self._waiting[pack] = waiting[_BATCH:]
        return waiting[:_BATCH]


def read_blobs(
    repository: Repository, pack: bytes, blobs: Iterable[PackedBlob]
) -> Iterator[tuple[PackedBlob, bytes | CorruptError | StorageError]]:
    """The content of some blobs of one pack, in few reads, each opened and hashed; what is wrong
    with a blob comes in its place. UnreachableError is raised."""
    file = FileKind.PACK.key(pack)
    for stretch in stretches(blobs):
        start = stretch[0].offset
        end = max(blob.offset + blob.length for blob in stretch)
        try:
            data = memoryview(repository.storage.load(file, start, end - start))
        except AbsentError:
            missing = CorruptError(f"{file}: missing, needed for blob {short(stretch[0].id)}")
            yield from ((blob, missing) for blob in stretch)
            continue
        except StorageError as exc:
            for blob in stretch:
                yield blob, exc
            continue
        for blob in stretch:
            sealed = data[blob.offset - start : blob.offset - start + blob.length]
            try:
                yield blob, repository.open_blob(sealed, blob, file)
            except CorruptError as exc:
                yield blob, exc


def stretches(
    blobs: Iterable[PackedBlob], gap: int = _GAP, limit: int = _STRETCH
) -> Iterator[list[PackedBlob]]:
    """Blobs of one pack in groups that one read fetches: neighbours, up to `limit` bytes (a blob
    that is larger comes alone)."""
    group: list[PackedBlob] = []
    for blob in sorted(blobs, key=lambda blob: blob.offset):
        if group:
            end = group[-1].offset + group[-1].length
            if blob.offset - end > gap or blob.offset + blob.length - group[0].offset > limit:
                yield group
                group = []
        group.append(blob)
    if group:
        yield group


def _visit(walk: Walk, positions: array[int]) -> Seen:
    return visit_trees(walk, positions, lambda blob, nodes: None)


def visit_trees(walk: Walk, positions: array[int], meet: Callable[[PackedBlob, list[Links]], None]) -> Seen:
    """Mark what some trees of one pack need; `meet` is told of each tree that can be read."""
    places = [walk.table.at(position) for position in positions]
    seen = Seen(array("I"), [])
    if places:
        pack = places[0][0]
        for blob, plain in read_blobs(walk.repository, pack, [blob for _, blob in places]):
            file = FileKind.PACK.key(pack)
            if isinstance(plain, bytes):
                _visit_tree(walk, file, blob, plain, seen, meet)
            else:
                seen.findings.append(damage_from(file, plain))
    return seen


def _visit_tree(
    walk: Walk,
    file: str,
    blob: PackedBlob,
    plain: bytes,
    seen: Seen,
    meet: Callable[[PackedBlob, list[Links]], None],
) -> None:
    try:
        nodes = decode_links(plain, f"{file}: tree {short(blob.id)}")
    except CorruptError as exc:
        seen.findings.append(damage_from(file, exc))
        return
    meet(blob, nodes)
    for node in nodes:
        problem = _follow(walk, node, seen)
        if problem:
            what = f"tree {short(blob.id)}: {node.name!r}: {problem}"
            seen.findings.append(damage(file, what, HINT_REPAIR))


def _follow(walk: Walk, node: Links, seen: Seen) -> str | None:
    """Mark what one node needs; what is wrong with it."""
    missing = []
    for identifier in node.content:
        position = walk.table.position(identifier, BlobType.DATA)
        if position < 0:
            missing.append(identifier)
        else:
            walk.marks.add(position)
    if node.is_directory:
        if node.subtree is None:
            return "a directory without a tree"
        position = walk.table.position(node.subtree, BlobType.TREE)
        if position < 0:
            return f"its tree {short(node.subtree)} is in no index"
        if walk.marks.add(position):
            seen.subtrees.append(position)
    if missing:
        return f"{len(missing)} of its {len(node.content)} data blobs are in no index: {short(missing[0])}"
    return None
