"""Looking at what a target holds before a restore into it: what is right already, what goes.

Invariant: it reads only. A piece counts as right when the bytes at its place hash to its blob's
id; times and sizes are not trusted.
"""

from __future__ import annotations

import os
import stat
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from drctl.repository.crew import Crew
from drctl.repository.extract_plan import Deletion, PlanBuilder
from drctl.repository.extract_target import TEMPORARY, Existing, Target, is_directory, open_file
from drctl.repository.ids import hash_of
from drctl.repository.node_table import KEPT, LINKED, SCAFFOLD, NodeTable, Planned
from drctl.repository.repo import Repository

_ENTRIES_AT_ONCE = 500
_PIECES_AT_ONCE = 2000


@dataclass(frozen=True, slots=True)
class SurveyContext:
    """What the workers inherit."""

    repository: Repository
    nodes: NodeTable
    target: Target
    links: Counter[int]  # further names of an entry


@dataclass(frozen=True, slots=True)
class Surveyed:
    """Of one batch: files that are right, and pieces that are."""

    kept: array[int]
    pieces: array[int]


def survey(
    repository: Repository,
    builder: PlanBuilder,
    path: bytes,
    existing: Existing,
    delete: bool,
    workers: int | None,
) -> tuple[Deletion, ...]:
    """Mark what can stay in the builder's table; returns what is to be deleted."""
    if existing is Existing.REFUSE or not os.path.isdir(path):
        return ()
    target = Target(path, existing, create=False)
    try:
        target.lay_out(builder.nodes)
        if existing is Existing.REUSE:
            links = Counter(builder.nodes.first_of_link.values())
            _mark(SurveyContext(repository, builder.nodes, target, links), workers)
        return tuple(_Extras(builder, target, delete).find())
    finally:
        target.close()


def _mark(context: SurveyContext, workers: int | None) -> None:
    nodes = context.nodes
    tasks = _batches(nodes)
    with Crew(context, workers) as crew:
        for seen in crew.run(survey_batch, lambda: next(tasks, None)):
            for piece in seen.pieces:
                nodes.piece_reused[piece] = 1
            for number in seen.kept:
                nodes.flags[number] |= KEPT
    for number, first in nodes.first_of_link.items():
        nodes.flags[number] |= nodes.flags[first] & KEPT


def _batches(nodes: NodeTable) -> Iterator[array[int]]:
    batch, pieces = array("I"), 0
    for node in nodes:
        if not stat.S_ISREG(node.mode) or nodes.flags[node.number] & LINKED:
            continue
        batch.append(node.number)
        pieces += node.pieces
        if len(batch) >= _ENTRIES_AT_ONCE or pieces >= _PIECES_AT_ONCE:
            yield batch
            batch, pieces = array("I"), 0
    if batch:
        yield batch


def survey_batch(context: SurveyContext, numbers: array[int]) -> Surveyed:
    """Compare existing files with what they are to be."""
    seen = Surveyed(array("I"), array("I"))
    for number in numbers:
        node = context.nodes[number]
        try:
            _survey_file(context, node, seen)
        except OSError:
            continue  # not there, or not a file: it is written
    return seen


def _survey_file(context: SurveyContext, node: Planned, seen: Surveyed) -> None:
    blobs = context.repository.blobs
    descriptor = open_file(node.name, context.target.directory(node.parent), os.O_RDONLY)
    try:
        found = os.fstat(descriptor)
        right = array("I")
        for piece in range(node.first, node.first + node.pieces):
            at = context.nodes.piece_blob[piece]
            data = os.pread(descriptor, blobs.plain_length_at(at), context.nodes.piece_offset[piece])
            if hash_of(data) == blobs.id_at(at):
                right.append(piece)
    finally:
        os.close(descriptor)
    # another name of this inode may lie outside the target, and would get this file's metadata
    known_names = 1 + context.links[node.number]
    if len(right) == node.pieces and found.st_size == node.size and found.st_nlink <= known_names:
        seen.kept.append(node.number)
    else:
        seen.pieces.extend(right)


class _Extras:
    """What is in the target's directories and not in the snapshot's."""

    def __init__(self, builder: PlanBuilder, target: Target, delete: bool) -> None:
        self._delete = delete
        self._builder = builder
        self._nodes = builder.nodes
        self._target = target

    def find(self) -> Iterator[Deletion]:
        """What an interrupted restore left behind; and where deleting was chosen, entries in the way
        of others and extra ones in wholly selected directories."""
        children: dict[int, dict[bytes, bool]] = {0: {}}
        for node in self._nodes:
            if node.number:
                children.setdefault(node.parent, {})[node.name] = stat.S_ISDIR(node.mode)
            if stat.S_ISDIR(node.mode):
                children.setdefault(node.number, {})
        for number, wanted in children.items():
            yield from self._in_directory(number, wanted)

    def _in_directory(self, number: int, wanted: dict[bytes, bool]) -> Iterator[Deletion]:
        try:
            descriptor = os.open(b".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=self._target.directory(number))
        except OSError:
            return  # it is not there yet, or something stands in its way, which is listed above it
        try:
            names = [os.fsencode(name) for name in os.listdir(descriptor)]
            for name in sorted(names):
                if name not in wanted and name.startswith(TEMPORARY):
                    yield Deletion(number, name, "left behind by an interrupted restore")
                    continue
                if not self._delete:
                    continue
                is_there = is_directory(name, descriptor)
                if name in wanted:
                    if is_there != wanted[name]:
                        yield Deletion(number, name, "of another kind than in the snapshot")
                elif self._may_delete(number, name, is_there):
                    yield Deletion(number, name, "not in the snapshot")
        finally:
            os.close(descriptor)

    def _may_delete(self, number: int, name: bytes, is_there: bool) -> bool:
        if self._nodes.flags[number] & SCAFFOLD and number:
            return False
        directory = b"" if number == 0 else b"/" + self._nodes.path(number)
        return self._builder.selects(directory + b"/" + name, is_directory=is_there)
