"""Writing what a restore plan says, pack by pack, in worker processes.

Invariant: a file's content is written only after its blob was authenticated, decompressed within
its bound and hashed. Into a fresh target files are made under their own names; where something may
be there already, under a temporary name that is renamed when all of it is right, so that an
interrupted run never leaves half a file under a final name. A file that is not whole is removed.
"""

from __future__ import annotations

import errno
import os
import stat
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

from drctl.errors import DrctlError, ExitCode
from drctl.ports import Buffer
from drctl.repository.codec import MAX_BLOB
from drctl.repository.crypto import OVERHEAD
from drctl.repository.extract_metadata import (
    MetadataRules,
    drop_other_attributes,
    settle_name,
    settle_open,
)
from drctl.repository.extract_plan import Failure, RestorePlan
from drctl.repository.extract_target import (
    TEMPORARY,
    Inode,
    Target,
    create_file,
    inode_of,
    open_file,
    reopen_file,
)
from drctl.repository.ids import hash_of, short
from drctl.repository.node_table import FAILED, KEPT, STAGED, Extra, Planned
from drctl.repository.pack import PackedBlob
from drctl.repository.reach import read_blobs
from drctl.repository.repo import Repository

_MOST_OPEN = 128
_BLOCK = 4096
_HOLE = bytes(_BLOCK)
# nothing that is tried after these can succeed
_FATAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE}


@dataclass(frozen=True, slots=True)
class PackTask:
    """Write all that comes out of one pack (its number in the index)."""

    pack: int


@dataclass(frozen=True, slots=True)
class EntriesTask:
    """Make entries without content, and set the metadata of files whose content is there."""

    numbers: array[int]


@dataclass(frozen=True, slots=True)
class ReuseTask:
    """Copy the pieces of one staged file that its predecessor in the target has."""

    number: int


WriteTask = PackTask | EntriesTask | ReuseTask


@dataclass(slots=True)
class Written:
    """What one task did. `size`: bytes written. `broken`: staged files that did not get all their content."""

    files: int = 0
    size: int = 0
    failures: list[Failure] = field(default_factory=list)
    broken: list[int] = field(default_factory=list)
    strangers: int = 0
    current: bytes = b""


@dataclass(frozen=True, slots=True)
class WriteContext:
    """What the workers inherit. `plain`: nothing but the process itself decides what a new file
    looks like (a fresh target without setgid and default ACL). `staged`: files made beforehand."""

    repository: Repository
    plan: RestorePlan
    target: Target
    rules: MetadataRules
    sparse: bool
    plain: bool
    token: bytes
    staged: dict[int, Inode]

    def working_name(self, node: Planned) -> bytes:
        """The name it is written under."""
        return node.name if self.target.fresh else b"%s%s-%x" % (TEMPORARY, self.token, node.number)

    def publish(self, node: Planned) -> None:
        """Give it its final name."""
        if self.target.fresh:
            return
        directory = self.target.directory(node.parent)
        os.rename(self.working_name(node), node.name, src_dir_fd=directory, dst_dir_fd=directory)

    def withdraw(self, node: Planned) -> None:
        """Remove what did not become whole."""
        try:
            os.unlink(self.working_name(node), dir_fd=self.target.directory(node.parent))
        except OSError:
            return  # it was not made, or its directory is gone

    def settle(self, descriptor: int, node: Planned) -> list[str]:
        """Set all metadata of an open file; what could not be set."""
        extra = self.plan.nodes.extra_of(node.number)
        dropped = [] if self.plain else drop_other_attributes(descriptor, extra, self.rules)
        return dropped + settle_open(descriptor, node, extra, self.rules)

    def is_skipped(self, node: Planned) -> bool:
        """Whether its directory could not be made, which is told once, of the directory."""
        return bool(self.plan.nodes.flags[node.parent] & FAILED)


def write_task(context: WriteContext, task: WriteTask) -> Written:
    """Do one task; errors of single files are in the result. DrctlError where nothing that follows
    can succeed."""
    os.umask(0)  # of this worker process: modes are given with open(2)
    match task:
        case PackTask():
            return _PackRun(context, task.pack).run()
        case EntriesTask():
            return _EntriesRun(context).run(task.numbers)
        case ReuseTask():
            return _ReuseRun(context).run(task.number)


class _Run:
    """What all tasks share: the result, and how a failed file is told."""

    def __init__(self, context: WriteContext) -> None:
        self.context = context
        self.nodes = context.plan.nodes
        self.done = Written()
        self._failed: set[int] = set()

    def fail(self, number: int, message: str, exit_code: ExitCode = ExitCode.INCOMPLETE) -> None:
        """List it, once."""
        if number in self._failed:
            return
        self._failed.add(number)
        self.done.failures.append(Failure(self.nodes.path(number), message, exit_code))
        if self.nodes.flags[number] & STAGED:
            self.done.broken.append(number)

    def fail_by_os(self, number: int, error: OSError) -> None:
        """List a file the target would not take; DrctlError when it takes no more at all."""
        refuse_fatal(error, self.context.target)
        self.fail(number, error.strerror or str(error))

    def count(self, node: Planned, problems: list[str]) -> None:
        """A file is complete."""
        self.done.files += 1
        self.done.strangers += self.context.rules.is_stranger(node)
        if problems:
            self.done.failures.append(Failure(self.nodes.path(node.number), "; ".join(problems)))


def refuse_fatal(error: OSError, target: Target) -> None:
    """DrctlError when nothing that is tried after this error can succeed."""
    if error.errno in _FATAL:
        raise DrctlError(
            f"cannot write to the target {os.fsdecode(target.path)!r}: {error.strerror}",
            hint="what is there so far is kept: make room, then continue with --delta",
        ) from error


@dataclass(slots=True)
class _Part:
    """A file that is written piece by piece in this run."""

    node: Planned
    inode: Inode
    descriptor: int | None
    remaining: int


class _PackRun(_Run):
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


class _EntriesRun(_Run):
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


class _ReuseRun(_Run):
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


def write_at(descriptor: int, data: Buffer, offset: int, *, sparse: bool = False) -> None:
    """Write all of `data` at `offset`; with `sparse`, blocks of zeros are left as the hole they are
    in the file, which must have its full size."""
    if sparse and _HOLE in bytes(data):
        for start, end in _data_ranges(bytes(data), offset):
            write_at(descriptor, memoryview(data)[start:end], offset + start)
        return
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view = view[written:]
        offset += written


def _data_ranges(data: bytes, offset: int) -> Iterator[tuple[int, int]]:
    """Stretches of whole blocks (of the file, not of `data`) that are not all zeros."""
    start = -1
    at = 0
    while at < len(data):
        end = min(at + _BLOCK - (offset + at) % _BLOCK, len(data))
        is_hole = not data[at:end].strip(b"\0") if data[at] == 0 else False
        if is_hole and start >= 0:
            yield start, at
            start = -1
        elif not is_hole and start < 0:
            start = at
        at = end
    if start >= 0:
        yield start, len(data)
