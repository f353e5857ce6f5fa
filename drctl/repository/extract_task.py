"""What the workers of a restore are told, and what all their tasks share.

Invariant: into a fresh target files are made under their own names; where something may be there
already, under a temporary name that is renamed when all of it is right, so that an interrupted run
never leaves half a file under a final name. A file that is not whole is removed and told of, once.
"""

from __future__ import annotations

import errno
import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

from drctl.errors import DrctlError, ExitCode
from drctl.ports import Buffer
from drctl.repository.extract_metadata import (
    MetadataRules,
    drop_other_attributes,
    settle_open,
)
from drctl.repository.extract_plan import Failure, RestorePlan
from drctl.repository.extract_target import (
    TEMPORARY,
    Inode,
    Target,
)
from drctl.repository.node_table import FAILED, STAGED, Planned
from drctl.repository.repo import Repository

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


class TaskRun:
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
