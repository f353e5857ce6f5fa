"""Files that survive a power cut once the call returns.

Invariant: the order is write, fsync the file, give it its name, fsync the directory; a name never
replaces another, and a file whose fsync failed is thrown away, never fsynced again: the kernel
forgets the lost pages after reporting them once, so a second fsync would lie.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

from drctl.ports import Buffer
from drctl.storage.keys import is_own_temporary

_MOST_BUFFERS = 1024  # IOV_MAX on Linux
_NO_SUCH_OPERATION = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1


@contextmanager
def new_file(path: str, parts: Sequence[Buffer]) -> Iterator[None]:
    """Write and fsync a file that did not exist, mode 0600; on any error, the context's too, it is
    removed again. Within the context it is marked as used: until it has its own name, whoever sweeps the
    directory must see that it is not abandoned."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        try:
            _mark_as_used(descriptor)
            _write_all(descriptor, parts)
            os.fsync(descriptor)
            yield
        finally:
            os.close(descriptor)
    except BaseException:
        with suppress(OSError):
            os.unlink(path)
        raise


def publish(temporary: str, path: str) -> None:
    """Give the temporary file its name; FileExistsError, and no temporary file, where it is taken."""
    try:
        _rename_without_replacing(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def sync_directory(path: str) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as exc:
        if exc.errno not in _NO_SUCH_OPERATION:  # CIFS and some FUSE file systems have no such call
            raise
    finally:
        os.close(descriptor)


def make_directories(path: str) -> None:
    """Make `path` and what is missing above it, mode 0700; every new name is durable."""
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for directory in reversed(missing):
        with suppress(FileExistsError):  # another thread was faster; its name still has to be durable
            os.mkdir(directory, 0o700)
        sync_directory(os.path.dirname(directory))


def remove_abandoned(directory: str, names: Iterable[str]) -> None:
    """Remove the temporary files that killed processes left. One in use is locked by its writer."""
    for name in names:
        if not is_own_temporary(name):
            continue
        with suppress(OSError):  # best effort: a leftover only costs space
            descriptor = os.open(os.path.join(directory, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # an empty one may belong to a writer that has not come to its lock yet
                if os.fstat(descriptor).st_size > 0:
                    os.unlink(os.path.join(directory, name))
            finally:
                os.close(descriptor)


def _mark_as_used(descriptor: int) -> None:
    with suppress(OSError):  # a file system without locks keeps its leftovers, nothing worse
        # waiting: whoever sweeps holds it for an instant, to see that the file is empty
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _write_all(descriptor: int, parts: Sequence[Buffer]) -> None:
    views = [memoryview(part).cast("B") for part in parts if len(part)]
    first = 0
    while first < len(views):
        written = os.writev(descriptor, views[first : first + _MOST_BUFFERS])
        while first < len(views) and written >= len(views[first]):
            written -= len(views[first])
            first += 1
        if written:
            views[first] = views[first][written:]


def _rename_without_replacing(old: str, new: str) -> None:
    import ctypes

    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is not None:
        if renameat2(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), _RENAME_NOREPLACE) == 0:
            return
        number = ctypes.get_errno()
        if number not in _NO_SUCH_OPERATION:
            raise OSError(number, os.strerror(number), new)
    # NFS and old kernels: link(2) refuses a taken name too, in two steps instead of one
    os.link(old, new, follow_symlinks=False)
    os.unlink(old)
