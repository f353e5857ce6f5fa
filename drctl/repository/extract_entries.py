"""Making what has no content of its own in a pack: empty files, links, devices, reused pieces.

Invariant: what is there already is kept only where it is exactly what the snapshot has.
"""

from __future__ import annotations

import os
import stat
from array import array

from drctl.repository.extract_metadata import (
    settle_name,
)
from drctl.repository.extract_target import (
    create_file,
    open_file,
    reopen_file,
)
from drctl.repository.extract_task import (
    TaskRun,
    Written,
    write_at,
)
from drctl.repository.ids import hash_of
from drctl.repository.node_table import KEPT, Extra, Planned


class EntriesRun(TaskRun):
    """Empty files, symlinks, devices, FIFOs, sockets; files whose content is right already."""

    def run(self, numbers: array[int]) -> Written:
        for number in numbers:
            node = self.nodes[number]
            if self.context.is_skipped(node):
                continue
            try:
                self.count(node, self._make(node))
            except OSError as exc:
                self.fail_by_os(number, exc)
        return self.done

    def _make(self, node: Planned) -> list[str]:
        directory = self.context.target.directory(node.parent)
        if not stat.S_ISREG(node.mode):
            return self._make_special(node, directory)
        if self.nodes.flags[node.number] & KEPT:
            descriptor = open_file(node.name, directory, os.O_RDONLY)
            try:
                return self.context.settle(descriptor, node)
            finally:
                os.close(descriptor)
        descriptor = create_file(self.context.working_name(node), directory, 0o600)
        try:
            problems = self.context.settle(descriptor, node)
        finally:
            os.close(descriptor)
        self.context.publish(node)
        return problems

    def _make_special(self, node: Planned, directory: int) -> list[str]:
        context, name = self.context, self.context.working_name(node)
        extra = self.nodes.extra_of(node.number)
        if not context.target.fresh and _is_there(directory, node, extra):
            return settle_name(directory, node, node.name, extra, context.rules)
        if stat.S_ISLNK(node.mode):
            os.symlink(extra.link_target, name, dir_fd=directory)
        elif (stat.S_ISBLK(node.mode) or stat.S_ISCHR(node.mode)) and not context.rules.privileges:
            return []
        else:
            os.mknod(name, stat.S_IFMT(node.mode) | 0o600, extra.device, dir_fd=directory)
        problems = settle_name(directory, node, name, extra, context.rules)
        try:
            context.publish(node)
        except OSError:
            context.withdraw(node)
            raise
        return problems


def _is_there(directory: int, node: Planned, extra: Extra) -> bool:
    """Whether a symlink or special file is there already, under this one name."""
    try:
        found = os.stat(node.name, dir_fd=directory, follow_symlinks=False)
        if stat.S_IFMT(found.st_mode) != stat.S_IFMT(node.mode) or found.st_nlink != 1:
            return False
        if stat.S_ISLNK(node.mode):
            return os.readlink(node.name, dir_fd=directory) == extra.link_target
        return found.st_rdev == extra.device
    except OSError:
        return False


class ReuseRun(TaskRun):
    """The pieces of a file that its predecessor has, copied; each is hashed once more."""

    def run(self, number: int) -> Written:
        node = self.nodes[number]
        if not self.context.is_skipped(node):
            try:
                self._copy(node)
            except OSError as exc:
                self.fail_by_os(number, exc)
        return self.done

    def _copy(self, node: Planned) -> None:
        directory = self.context.target.directory(node.parent)
        old = open_file(node.name, directory, os.O_RDONLY)
        try:
            new = reopen_file(self.context.working_name(node), directory, self.context.staged[node.number])
            try:
                self._copy_pieces(node, old, new)
            finally:
                os.close(new)
        finally:
            os.close(old)

    def _copy_pieces(self, node: Planned, old: int, new: int) -> None:
        blobs = self.context.repository.blobs
        for piece in range(node.first, node.first + node.pieces):
            if not self.nodes.piece_reused[piece]:
                continue
            at, offset = self.nodes.piece_blob[piece], self.nodes.piece_offset[piece]
            data = os.pread(old, blobs.plain_length_at(at), offset)
            if hash_of(data) != blobs.id_at(at):
                self.fail(node.number, "was changed by somebody while it was being restored")
                return
            write_at(new, data, offset, sparse=self.context.sparse)
