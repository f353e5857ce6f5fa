"""Reading back what was restored and comparing it with the snapshot.

Invariant: content is compared by hash with the blobs' ids, never with what this run had in memory;
pages are dropped first where the system allows it, so that the disk is read.
"""

from __future__ import annotations

import ctypes
import os
import stat
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

from drctl.errors import ExitCode
from drctl.repository.extract_metadata import MetadataRules, attribute_differences, differences
from drctl.repository.extract_plan import Failure
from drctl.repository.extract_target import Target, open_file
from drctl.repository.ids import hash_of
from drctl.repository.node_table import LINKED, SCAFFOLD, NodeTable, Planned
from drctl.repository.repo import Repository

_ENTRIES_AT_ONCE = 1000
_PIECES_AT_ONCE = 2000


@dataclass(frozen=True, slots=True)
class VerifyContext:
    """What the workers inherit."""

    repository: Repository
    nodes: NodeTable
    target: Target
    rules: MetadataRules

    def flush(self) -> None:
        """Bring what was written to the disk; only clean pages can be dropped."""
        if ctypes.CDLL(None, use_errno=True).syncfs(self.target.root) != 0:
            os.sync()


@dataclass(frozen=True, slots=True)
class VerifyTask:
    """Entries to compare; of the one entry of a big file, only some pieces."""

    numbers: array[int]
    first_piece: int = 0
    pieces: int | None = None


@dataclass(slots=True)
class Verified:
    """What one task saw."""

    entries: int = 0
    size: int = 0
    wrong: list[Failure] = field(default_factory=list)


def verify_tasks(nodes: NodeTable) -> Iterator[VerifyTask]:
    """All entries, in batches of bounded work."""
    batch, pieces = array("I"), 0
    for number in range(1, len(nodes)):
        node = nodes[number]
        if node.pieces > _PIECES_AT_ONCE:
            for first in range(0, node.pieces, _PIECES_AT_ONCE):
                yield VerifyTask(array("I", [number]), first, _PIECES_AT_ONCE)
            continue
        batch.append(number)
        pieces += node.pieces
        if len(batch) >= _ENTRIES_AT_ONCE or pieces >= _PIECES_AT_ONCE:
            yield VerifyTask(batch)
            batch, pieces = array("I"), 0
    if batch:
        yield VerifyTask(batch)


def verify_task(context: VerifyContext, task: VerifyTask) -> Verified:
    """Compare; what differs is in the result."""
    seen = Verified()
    for number in task.numbers:
        node = context.nodes[number]
        try:
            wrong = list(_compare(context, node, task, seen))
        except OSError as exc:
            wrong = [f"cannot be read back: {exc.strerror}"]
        seen.entries += task.first_piece == 0
        if wrong:
            text = "differs from the snapshot: " + ", ".join(wrong)
            seen.wrong.append(Failure(context.nodes.path(number), text, ExitCode.VERIFICATION_FAILED))
    return seen


def _compare(context: VerifyContext, node: Planned, task: VerifyTask, seen: Verified) -> Iterator[str]:
    flags, extra = context.nodes.flags[node.number], context.nodes.extra_of(node.number)
    if flags & SCAFFOLD:
        return
    directory = context.target.directory(node.parent)
    if _is_left_out(context, node):
        return
    found = os.stat(node.name, dir_fd=directory, follow_symlinks=False)
    yield from differences(found, node, extra, context.rules)
    place = b"/proc/self/fd/%d/%s" % (directory, node.name)
    yield from attribute_differences(place, extra, context.rules)
    if stat.S_ISLNK(node.mode) and stat.S_ISLNK(found.st_mode):
        if os.readlink(node.name, dir_fd=directory) != extra.link_target:
            yield "link target"
    elif stat.S_ISREG(node.mode) and stat.S_ISREG(found.st_mode):
        if found.st_size != node.size:
            yield f"{found.st_size} bytes rather than {node.size}"
        elif flags & LINKED:
            yield from _compare_link(context, node, found)
        else:
            yield from _compare_content(context, node, task, seen)


def _is_left_out(context: VerifyContext, node: Planned) -> bool:
    device = stat.S_ISBLK(node.mode) or stat.S_ISCHR(node.mode)
    return device and not context.rules.privileges


def _compare_link(context: VerifyContext, node: Planned, found: os.stat_result) -> Iterator[str]:
    first = context.nodes[context.nodes.first_of_link[node.number]]
    directory = context.target.directory(first.parent)
    if not os.path.samestat(found, os.stat(first.name, dir_fd=directory, follow_symlinks=False)):
        yield f"not a hard link to {os.fsdecode(context.nodes.path(first.number))!r}"


def _compare_content(
    context: VerifyContext, node: Planned, task: VerifyTask, seen: Verified
) -> Iterator[str]:
    nodes, blobs = context.nodes, context.repository.blobs
    count = node.pieces if task.pieces is None else min(task.pieces, node.pieces - task.first_piece)
    descriptor = open_file(node.name, context.target.directory(node.parent), os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        for piece in range(node.first + task.first_piece, node.first + task.first_piece + count):
            at, offset = nodes.piece_blob[piece], nodes.piece_offset[piece]
            data = os.pread(descriptor, blobs.plain_length_at(at), offset)
            seen.size += len(data)
            if hash_of(data) != blobs.id_at(at):
                yield f"content from byte {offset} on"
                return
    finally:
        os.close(descriptor)
