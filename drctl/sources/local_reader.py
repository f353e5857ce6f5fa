"""One opened local file: its bytes, its holes, and whether it changed while being read.

Invariant: the descriptor was proven to be the listed file before a `LocalReader` exists.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

_SEQUENTIAL_FROM = 8 << 20  # bytes from which telling the kernel to read ahead pays for the call


class LocalReader:
    """Implements `ports.Reader`; owns its descriptor."""

    __slots__ = ("_data_end", "_data_start", "_descriptor", "_seen", "_size", "_sparse")

    def __init__(self, descriptor: int, opened: os.stat_result, size: int | None = None) -> None:
        """`size`: where st_size does not tell it (block devices)."""
        self._descriptor = descriptor
        self._seen = opened
        self._size = size = opened.st_size if size is None else size
        self._sparse = opened.st_blocks * 512 < size and size == opened.st_size
        self._data_start = self._data_end = 0
        if size >= _SEQUENTIAL_FROM:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)

    def readinto(self, buffer: memoryview, /) -> int:
        return os.readv(self._descriptor, (buffer,))

    def hole(self, offset: int) -> int:
        if not self._sparse or self._data_start <= offset < self._data_end or offset >= self._size:
            return 0
        position = os.lseek(self._descriptor, 0, os.SEEK_CUR)
        try:
            return self._find_hole(offset)
        finally:
            os.lseek(self._descriptor, position, os.SEEK_SET)

    def _find_hole(self, offset: int) -> int:
        try:
            data = os.lseek(self._descriptor, offset, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno == errno.ENXIO:  # nothing but a hole up to the end
                return self._size - offset
            if exc.errno == errno.EINVAL:  # this file system cannot tell
                self._sparse = False
                return 0
            raise
        if data > offset:
            return min(data, self._size) - offset
        self._data_start, self._data_end = offset, os.lseek(self._descriptor, offset, os.SEEK_HOLE)
        return 0

    def skip(self, count: int) -> None:
        os.lseek(self._descriptor, count, os.SEEK_CUR)

    def changed(self) -> bool:
        now, seen = os.fstat(self._descriptor), self._seen
        return (now.st_mtime_ns, now.st_ctime_ns, now.st_size) != (
            seen.st_mtime_ns, seen.st_ctime_ns, seen.st_size,
        )  # fmt: skip

    def extended_attributes(self) -> Sequence[tuple[bytes, bytes]]:
        return extended_attributes_of(self._descriptor)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def extended_attributes_of(target: int | bytes, *, follow: bool = False) -> Sequence[tuple[bytes, bytes]]:
    """All xattrs of a descriptor or a path, as the kernel lists them; ACLs are `system.posix_acl_*`.

    Empty where the file system has none; OSError (EACCES, EIO) otherwise."""
    # a descriptor is followed by nature, and CPython refuses the flag for it
    follow = follow or isinstance(target, int)
    try:
        names = os.listxattr(target, follow_symlinks=follow)
    except OSError as exc:
        if exc.errno == errno.ENOTSUP:
            return ()
        raise
    if not names:
        return ()
    found = []
    for name in names:
        try:
            found.append((os.fsencode(name), os.getxattr(target, name, follow_symlinks=follow)))
        except OSError as exc:
            # removed since the listing, or listed by a file system that cannot show it
            if exc.errno not in (errno.ENODATA, errno.ENOTSUP):
                raise
    return found
