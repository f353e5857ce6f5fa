"""Directories coming together: a tree is finished when the last thing in it is.

Invariant: a folder's tree is stored exactly once, after everything it refers to was handed on, and
the root's is the last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from drctl.repository.archive_job import Counts, below
from drctl.repository.tree import join_tree


@dataclass(slots=True)
class Folder:
    """A directory whose tree is not finished. `pending` counts what it waits for: its own listing,
    subdirectories, large files, parts."""

    path: bytes
    above: Folder | None
    name: bytes
    unfinished_node: str
    parent_tree: bytes | None  # what the parent snapshot has here
    pending: int = 1
    nodes: list[tuple[bytes, str]] = field(default_factory=list)

    def path_of(self, name: bytes) -> bytes:
        """The path of an entry in it."""
        return below(self.path) + name


class Folders:
    """The unfinished directories of one run. Used by one thread only."""

    def __init__(self, parent_tree: bytes | None, store: Callable[[bytes], bytes], counts: Counts) -> None:
        self.top = Folder(b"/", None, b"", "", parent_tree)
        self.root_tree: bytes | None = None
        self._store = store
        self._counts = counts

    def begin(self, above: Folder, name: bytes, unfinished_node: str, parent_tree: bytes | None) -> Folder:
        """A new folder, which `above` now waits for."""
        above.pending += 1
        return Folder(above.path_of(name), above, name, unfinished_node, parent_tree)

    def one_done(self, folder: Folder) -> None:
        """One of the things `folder` waits for is done."""
        folder.pending -= 1
        if folder.pending == 0:
            folder.nodes.sort(key=lambda named: named[0])
            self.finish(folder, self._store(join_tree([node for _, node in folder.nodes])))

    def finish(self, folder: Folder, tree: bytes) -> None:
        """The folder's tree is stored."""
        above = folder.above
        if above is None:
            self.root_tree = tree
            return
        if folder.parent_tree is None:
            self._counts.dirs_new += 1
        elif tree == folder.parent_tree:
            self._counts.dirs_unmodified += 1
        else:
            self._counts.dirs_changed += 1
        above.nodes.append((folder.name, f'{folder.unfinished_node[:-1]},"subtree":"{tree.hex()}"}}'))
        folder.nodes = []
        self.one_done(above)

    def leave_out(self, folder: Folder) -> None:
        """It could not be read. It is not in the tree: an empty directory there would be a lie."""
        if folder.above is not None:
            self.one_done(folder.above)
