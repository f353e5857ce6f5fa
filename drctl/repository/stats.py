"""What snapshots share and what nothing needs: restore sizes, dedup and compression, unused bytes.

Invariant: every tree is read once, however many snapshots hold it. Names of one file (hard links)
count each, as a restore without links would write them.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from drctl.errors import CorruptError
from drctl.repository.crew import Crew
from drctl.repository.finding import Finding, Severity
from drctl.repository.pack import BlobType, PackedBlob
from drctl.repository.reach import Frontier, Seen, Walk, start_walk, visit_trees
from drctl.repository.repo import Repository
from drctl.repository.snapshot import Snapshot
from drctl.repository.survey import survey_index
from drctl.repository.tree_links import Links

TreeSize: TypeAlias = (
    "tuple[int, int, array[int]]"  # position, bytes of its own files, positions of its subtrees
)
_HINT = "look closer with: drctl repo check"


@dataclass(frozen=True, slots=True)
class ContentStats:
    """Bytes. `stored` counts blobs as they lie in packs, `plain` before compression and sealing."""

    restore_bytes: tuple[tuple[Snapshot, int], ...]  # of each snapshot, oldest first
    needed_stored: int
    needed_plain: int
    needed_plain_data: int
    unused_stored: int
    duplicates: int  # blobs that are stored more than once

    @property
    def compression_ratio(self) -> float | None:
        """How many times smaller compression makes what is needed; None where nothing is."""
        return self.needed_plain / self.needed_stored if self.needed_stored else None

    @property
    def dedup_ratio(self) -> float | None:
        """How many times all snapshots, restored, are larger than their different data."""
        total = sum(size for _, size in self.restore_bytes)
        return total / self.needed_plain_data if self.needed_plain_data else None


def survey_content(repository: Repository, forked: Callable[[], None] = lambda: None) -> ContentStats:
    """Read the index and every tree. CorruptError for the first damage met."""
    snapshots = repository.snapshots()
    survey = survey_index(repository)
    _refuse(survey.findings)
    walk = start_walk(repository, survey.table)
    sizes: dict[int, tuple[int, array[int]]] = {}
    frontier = Frontier(survey.table)
    for snapshot in snapshots:
        position = survey.table.position(snapshot.tree, BlobType.TREE)
        if position < 0:
            raise CorruptError(
                f"the tree of snapshot {(snapshot.id or b'').hex()[:8]} is in no index", hint=_HINT
            )
        if walk.marks.add(position):
            frontier.add(position)
    with Crew(walk, forked=forked) as crew:
        for seen, measured in crew.run(_measure, frontier.take):
            _refuse(seen.findings)
            sizes.update({at: (own, subtrees) for at, own, subtrees in measured})
            for position in seen.subtrees:
                frontier.add(position)
    whole = _add_up(sizes)
    restore = [
        (snapshot, whole[survey.table.position(snapshot.tree, BlobType.TREE)]) for snapshot in snapshots
    ]
    body = sum(listing.body for listing in survey.listings)
    return _content_stats(walk, tuple(restore), body, survey.duplicates)


def _refuse(findings: list[Finding]) -> None:
    for finding in findings:
        if finding.severity is Severity.ERROR:
            raise CorruptError(f"{finding.file}: {finding.what}", hint=_HINT)


def _content_stats(
    walk: Walk, restore: tuple[tuple[Snapshot, int], ...], body: int, duplicates: int
) -> ContentStats:
    stored = plain = data = 0
    for position in walk.marks.positions(1):
        blob = walk.table.at(position)[1]
        stored += blob.length
        plain += blob.plain_length
        data += blob.plain_length if blob.type is BlobType.DATA else 0
    return ContentStats(restore, stored, plain, data, body - stored, duplicates)


def _measure(walk: Walk, positions: array[int]) -> tuple[Seen, list[TreeSize]]:
    """Visit some trees and weigh each: its files by the blobs they are made of."""
    table = walk.table
    measured: list[TreeSize] = []

    def meet(blob: PackedBlob, nodes: list[Links]) -> None:
        own, subtrees = 0, array("I")
        for node in nodes:
            for identifier in node.content:
                found = table.get(identifier, BlobType.DATA)
                own += found[1].plain_length if found else 0
            if node.is_directory and node.subtree:
                at = table.position(node.subtree, BlobType.TREE)
                if at >= 0:
                    subtrees.append(at)
        measured.append((table.position(blob.id, BlobType.TREE), own, subtrees))

    return visit_trees(walk, positions, meet), measured


def _add_up(sizes: dict[int, tuple[int, array[int]]]) -> dict[int, int]:
    """Each tree with all below it. No recursion: a hostile tree may be as deep as it likes."""
    whole: dict[int, int] = {}
    for start in sizes:
        stack = [start]
        while stack:
            at = stack[-1]
            own, subtrees = sizes[at]
            waiting = [subtree for subtree in subtrees if subtree not in whole]
            if waiting:
                stack.extend(waiting)
                continue
            whole[at] = own + sum(whole[subtree] for subtree in subtrees)
            stack.pop()
    return whole
