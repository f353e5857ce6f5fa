"""Looking into snapshots: what is in one, and what differs between two.

Invariant: nothing is written and no file content is read; trees that are equal are not opened, and
nesting is bounded, so a hostile repository costs an error and not the machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from drctl.errors import CorruptError, UsageError
from drctl.repository.ids import short
from drctl.repository.repo import Repository
from drctl.repository.snapshot import Snapshot
from drctl.repository.tree import Node, decode_tree

MAX_DEPTH = 4096  # directories below each other; PATH_MAX allows 2048


class Kind(Enum):
    """What became of an entry from the older snapshot to the newer one."""

    ADDED = "added"
    REMOVED = "removed"
    REPLACED = "replaced"  # by an entry of another type
    CONTENT = "content"
    METADATA = "metadata"  # mode, owner, modification time or extended attributes, and nothing else


@dataclass(frozen=True, slots=True)
class Difference:
    """One entry that differs. `before` is None for an added one, `after` for a removed one."""

    path: bytes
    kind: Kind
    before: Node | None
    after: Node | None


class Found(NamedTuple):
    """One entry of a snapshot."""

    path: bytes
    node: Node


class _Pair(NamedTuple):
    """Two directories of one path that are compared; None: there is none on that side."""

    path: bytes
    before: bytes | None
    after: bytes | None
    depth: int


def list_entries(repository: Repository, snapshot: Snapshot, below: bytes = b"/") -> Iterator[Found]:
    """Every entry of a snapshot at and below an absolute path, directories before what is in them.
    UsageError when the path is not in it; CorruptError naming a tree that is not one."""
    for difference in _compare(repository, *_start(repository, snapshot, below)):
        assert difference.after is not None, "nothing was there before"
        yield Found(difference.path, difference.after)


def compare_snapshots(repository: Repository, older: Snapshot, newer: Snapshot) -> Iterator[Difference]:
    """Every entry that differs, in the order of the trees. CorruptError naming a tree."""
    yield from _compare(repository, [], _Pair(b"/", older.tree, newer.tree, 0))


def _start(repository: Repository, snapshot: Snapshot, below: bytes) -> tuple[list[Difference], _Pair | None]:
    """The entry at `below` itself, and the directory it is."""
    path, node = b"/", None
    tree: bytes | None = snapshot.tree
    for name in [part for part in below.split(b"/") if part]:
        inside = _nodes(repository, tree) if tree is not None else {}
        if name not in inside:
            raise UsageError(
                f"{os.fsdecode(below)!r} is not in snapshot {short(snapshot.id or b'')}",
                hint="drctl backup show --files lists what is",
            )
        node = inside[name]
        path = _join(path, name)
        tree = node.subtree
    first = [] if node is None else [Difference(path, Kind.ADDED, None, node)]
    return first, None if tree is None else _Pair(path, None, tree, 0)


def _compare(repository: Repository, first: list[Difference], root: _Pair | None) -> Iterator[Difference]:
    yield from first
    waiting = [] if root is None else [root]
    while waiting:
        pair = waiting.pop()
        if pair.depth > MAX_DEPTH:
            raise CorruptError(f"directories are nested deeper than {MAX_DEPTH}: {pair.path[:80]!r}...")
        before = _nodes(repository, pair.before) if pair.before is not None else {}
        after = _nodes(repository, pair.after) if pair.after is not None else {}
        below = []
        for name in sorted({*before, *after}):
            old, new, path = before.get(name), after.get(name), _join(pair.path, name)
            kind = _kind(old, new)
            if kind is not None:
                yield Difference(path, kind, old, new)
            trees = (old.subtree if old else None, new.subtree if new else None)
            if trees[0] != trees[1]:
                below.append(_Pair(path, *trees, pair.depth + 1))
        waiting += reversed(below)


def _nodes(repository: Repository, tree: bytes) -> dict[bytes, Node]:
    where = f"tree {short(tree)}"
    return {node.name: node for node in decode_tree(repository.load_tree(tree), where)}


def _join(folder: bytes, name: bytes) -> bytes:
    return folder + name if folder == b"/" else folder + b"/" + name


def _kind(old: Node | None, new: Node | None) -> Kind | None:
    if old is None or new is None:
        return Kind.ADDED if old is None else Kind.REMOVED
    if old.type != new.type:
        return Kind.REPLACED
    if _content(old) != _content(new):
        return Kind.CONTENT
    return None if _metadata(old) == _metadata(new) else Kind.METADATA


def _content(node: Node) -> tuple[object, ...]:
    # of a directory: what is in it is compared by itself
    return (node.content, node.link_target, node.device)


def _metadata(node: Node) -> tuple[object, ...]:
    return (node.mode, node.uid, node.gid, node.mtime_ns, node.extended_attributes)
