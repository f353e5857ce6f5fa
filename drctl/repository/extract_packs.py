"""Writing all that comes out of one pack.

Invariant: a file's content is written only after its blob was authenticated, decompressed within
its bound and hashed; the pack is read once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from drctl.errors import ExitCode
from drctl.repository.codec import MAX_BLOB
from drctl.repository.crypto import OVERHEAD
from drctl.repository.extract_target import (
    Inode,
    create_file,
    inode_of,
    reopen_file,
)
from drctl.repository.extract_task import (
    TaskRun,
    WriteContext,
    Written,
    write_at,
)
from drctl.repository.ids import short
from drctl.repository.node_table import STAGED, Planned
from drctl.repository.pack import PackedBlob
from drctl.repository.reach import read_blobs

_MOST_OPEN = 128


@dataclass(slots=True)
class _Part:
    """A file that is written piece by piece in this run."""

    node: Planned
    inode: Inode
    descriptor: int | None
    remaining: int


class PackRun(TaskRun):
    """All pieces of one pack: read in few ranges, each blob opened once, no file opened twice."""

    def __init__(self, context: WriteContext, pack: int) -> None:
        super().__init__(context)
        self._blobs = context.repository.blobs
        self._pack = self._blobs.packs[pack]
        self._wanted: dict[bytes, list[int]] = {}
        for piece in context.plan.packs[pack]:
            identifier = self._blobs.id_at(self.nodes.piece_blob[piece])
            self._wanted.setdefault(identifier, []).append(piece)
        self._parts: dict[int, _Part] = {}
        self._open = 0

    def run(self) -> Written:
        """Do it."""
        repository = self.context.repository
        try:
            for blob, plain in read_blobs(repository, self._pack, self._bounded()):
                if isinstance(plain, bytes):
                    for piece in self._wanted[blob.id]:
                        self._place(piece, plain)
                else:
                    self._fail_blob(blob.id, plain.message)
            return self.done
        finally:
            self._close_parts()

    def _bounded(self) -> Iterator[PackedBlob]:
        # nothing larger than a blob can be is read at all
        for pieces in self._wanted.values():
            blob = self._blobs.at(self.nodes.piece_blob[pieces[0]])[1]
            if blob.length > MAX_BLOB + OVERHEAD:
                self._fail_blob(blob.id, f"blob {short(blob.id)} is said to have {blob.length} bytes")
            else:
                yield blob

    def _fail_blob(self, identifier: bytes, message: str) -> None:
        for piece in self._wanted[identifier]:
            number = self.nodes.piece_file[piece]
            if not self.context.is_skipped(self.nodes[number]):
                self.fail(number, message, ExitCode.CORRUPT)

    def _place(self, piece: int, plain: bytes) -> None:
        node = self.nodes[self.nodes.piece_file[piece]]
        if node.number in self._failed or self.context.is_skipped(node):
            return
        try:
            if node.pieces == 1 and not self.nodes.flags[node.number] & STAGED:
                self._write_whole(node, plain)
            else:
                self._write_part(node, piece, plain)
            self.done.size += len(plain)
        except OSError as exc:
            self.fail_by_os(node.number, exc)

    def _write_whole(self, node: Planned, plain: bytes) -> None:
        context = self.context
        directory = context.target.directory(node.parent)
        bits = node.mode & 0o7777
        simple = context.plain and bits <= 0o777 and node.number not in self.nodes.extras
        descriptor = create_file(context.working_name(node), directory, bits if simple else 0o600)
        problems: list[str] = []
        try:
            if context.sparse:
                os.ftruncate(descriptor, len(plain))
                write_at(descriptor, plain, 0, sparse=True)
            elif os.write(descriptor, plain) != len(plain):
                write_at(descriptor, plain, 0)
            if simple:
                self._settle_simple(descriptor, node)
            else:
                problems = context.settle(descriptor, node)
        except OSError:
            context.withdraw(node)
            raise
        finally:
            os.close(descriptor)
        self._publish(node, problems)

    def _settle_simple(self, descriptor: int, node: Planned) -> None:
        rules = self.context.rules
        if rules.owners and (node.uid != rules.uid or node.gid != rules.gid):
            os.fchown(descriptor, node.uid, node.gid)
        os.utime(descriptor, ns=(node.mtime_ns, node.mtime_ns))

    def _publish(self, node: Planned, problems: list[str]) -> None:
        try:
            self.context.publish(node)
        except OSError:
            self.context.withdraw(node)
            raise
        self.count(node, problems)
        self.done.current = node.name

    # --- files of several pieces

    def _write_part(self, node: Planned, piece: int, plain: bytes) -> None:
        part = self._parts.get(node.number) or self._begin(node)
        if part.descriptor is None:
            directory = self.context.target.directory(node.parent)
            part.descriptor = reopen_file(self.context.working_name(node), directory, part.inode)
            self._open += 1
        write_at(part.descriptor, plain, self.nodes.piece_offset[piece], sparse=self.context.sparse)
        part.remaining -= 1
        if part.remaining == 0 and not self.nodes.flags[node.number] & STAGED:
            problems = self.context.settle(part.descriptor, node)
            self._close(part)
            del self._parts[node.number]
            self._publish(node, problems)

    def _begin(self, node: Planned) -> _Part:
        if self._open >= _MOST_OPEN:
            self._close(next(part for part in self._parts.values() if part.descriptor is not None))
        staged = self.context.staged.get(node.number)
        if staged is not None:
            part = _Part(node, staged, None, node.pieces)
        else:
            directory = self.context.target.directory(node.parent)
            descriptor = create_file(self.context.working_name(node), directory, 0o600)
            os.ftruncate(descriptor, node.size)
            part = _Part(node, inode_of(descriptor), descriptor, node.pieces)
            self._open += 1
        self._parts[node.number] = part
        return part

    def _close(self, part: _Part) -> None:
        if part.descriptor is not None:
            os.close(part.descriptor)
            part.descriptor = None
            self._open -= 1

    def _close_parts(self) -> None:
        for part in self._parts.values():
            self._close(part)
            if not self.nodes.flags[part.node.number] & STAGED:
                self.context.withdraw(part.node)
