"""The target of a restore: everything in it is reached by descriptors, name by name.

Invariant: no call here or above it gives the kernel a path with a `/` that came out of a snapshot,
and no symlink below the target is ever followed: each directory is opened by its one name,
relative to its parent's descriptor, with O_NOFOLLOW.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum

from drctl.errors import DrctlError, LockedError, RefusedError, UsageError
from drctl.repository.node_table import FOUND, NodeTable

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_MOST_OPEN = 256
TEMPORARY = b".drctl-restore-"  # what an interrupted restore into a directory in use leaves behind


class Existing(Enum):
    """What a restore does with what is in the target already."""

    REFUSE = "refuse"  # the target must be absent or empty
    REPLACE = "replace"  # everything selected is written anew
    REUSE = "reuse"  # what is right already, down to the single blob, stays (--delta)


@dataclass(frozen=True, slots=True)
class Inode:
    """Tells one file from another that was put in its place."""

    device: int
    number: int


class Target:
    """The directory a restore writes to. Its descriptors are this process's own."""

    def __init__(self, path: bytes, existing: Existing, *, create: bool = True) -> None:
        """RefusedError when it is not empty and nothing else was chosen; LockedError when another
        restore works in it."""
        self.path = path
        self.fresh = existing is Existing.REFUSE
        self.created = create and _make(path)
        self._root = _open_root(path)
        self._nodes: NodeTable | None = None
        self._open: OrderedDict[int, int] = OrderedDict()
        if self.fresh and not _is_empty(self._root):
            raise RefusedError(
                f"the target {os.fsdecode(path)!r} is not empty",
                hint="restore to an empty directory, or choose to change what is there (--in-place, --delta)",
            )
        if create:
            self._lock()

    def lay_out(self, nodes: NodeTable) -> None:
        """Say which directories there are."""
        self._nodes = nodes

    @property
    def root(self) -> int:
        """The target's own descriptor."""
        return self._root

    def directory(self, number: int) -> int:
        """A descriptor of a directory, to make or look up names in it. It stays open only as long
        as it is used now and then: do not keep it. OSError when it is not a directory (any more)."""
        if number == 0:
            return self._root
        descriptor = self._open.get(number)
        if descriptor is not None:
            self._open.move_to_end(number)
            return descriptor
        return self._walk(number)

    def _walk(self, number: int) -> int:
        assert self._nodes is not None
        chain, here = [], number
        while here and here not in self._open:
            chain.append(here)
            here = self._nodes.parents[here]
        descriptor = self._open[here] if here else self._root
        for one in reversed(chain):
            descriptor = os.open(self._nodes[one].name, _DIRECTORY, dir_fd=descriptor)
            self._open[one] = descriptor
            if len(self._open) > _MOST_OPEN:
                os.close(self._open.popitem(last=False)[1])
        return descriptor

    def make_directory(self, number: int) -> None:
        """Make a directory, closed to others until its metadata is set; or, where the target may
        hold something, find it. OSError (EEXIST) for anything planted or in the way."""
        assert self._nodes is not None
        node = self._nodes[number]
        parent = self.directory(node.parent)
        try:
            os.mkdir(node.name, 0o700, dir_fd=parent)
        except FileExistsError:
            if self.fresh or not is_directory(node.name, parent):
                raise
            self._nodes.flags[number] |= FOUND

    def remove(self, directory: int, name: bytes) -> None:
        """Delete a name and what is below it, following nothing."""
        parent = self.directory(directory)
        if is_directory(name, parent):
            try:
                shutil.rmtree(name, dir_fd=parent)
            except RecursionError as exc:
                raise OSError(errno.ELOOP, "directories nest too deep to be deleted") from exc
        else:
            os.unlink(name, dir_fd=parent)

    def close(self) -> None:
        """Give all descriptors back."""
        for descriptor in (*self._open.values(), self._root):
            os.close(descriptor)
        self._open.clear()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._root, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise LockedError(
                f"another restore is writing to {os.fsdecode(self.path)!r}", hint="wait for it to end"
            ) from exc
        except OSError as exc:
            if exc.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
            return  # a file system without locks: two restores into one target are not kept apart


def create_file(name: bytes, directory: int, mode: int) -> int:
    """A descriptor of a file that did not exist; FileExistsError otherwise."""
    return os.open(name, _NEW_FILE, mode, dir_fd=directory)


def open_file(name: bytes, directory: int, flags: int) -> int:
    """A descriptor of the regular file of that name, whatever races; OSError when it is none."""
    descriptor = os.open(name, flags | _OLD_FILE, dir_fd=directory)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file")
    return descriptor


def reopen_file(name: bytes, directory: int, inode: Inode) -> int:
    """A descriptor of the very file that was made before; OSError when another is in its place."""
    descriptor = open_file(name, directory, os.O_WRONLY)
    if inode_of(descriptor) != inode:
        os.close(descriptor)
        raise OSError(errno.ESTALE, "another file was put in its place")
    return descriptor


def inode_of(descriptor: int) -> Inode:
    """Which file is open."""
    found = os.fstat(descriptor)
    return Inode(found.st_dev, found.st_ino)


def is_directory(name: bytes, parent: int) -> bool:
    """Whether the name itself is a directory; a symlink to one is not."""
    return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)


def _make(path: bytes) -> bool:
    try:
        os.makedirs(path, 0o700)
    except FileExistsError:
        return False
    except OSError as exc:
        raise UsageError(f"cannot make the target {os.fsdecode(path)!r}: {exc.strerror}") from exc
    return True


def _open_root(path: bytes) -> int:
    try:
        # the operator's own path may lead over symlinks; what lies below it may not
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as exc:
        raise DrctlError(f"cannot open the target {os.fsdecode(path)!r}: {exc.strerror}") from exc


def _is_empty(root: int) -> bool:
    # a file system made just now has a lost+found
    return all(name == "lost+found" for name in os.listdir(root))
