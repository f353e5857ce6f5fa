"""Directories opened below a fixed point without following any symlink on the way.

Invariant: what `open_directory` returns lies below the anchor at the moment of opening, whatever
was renamed or replaced by a symlink since the listing. The way TO the anchor may hold symlinks: it
was named by the plan.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from drctl.ports import SwappedError

_WALK = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LONGEST = 4000  # bytes of a path one system call takes (PATH_MAX is 4096 with the final NUL)

OpenBelow = Callable[[int, bytes, int], int]


class Anchor:
    """The parent directory of a root, held open."""

    def __init__(self, directory: bytes, open_below: OpenBelow | None = None) -> None:
        self.descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._open_below = open_below or choose_open_below()

    def open_directory(self, relative: bytes) -> int:
        """A descriptor to list; `relative` may be longer than PATH_MAX. OSError; SwappedError when
        something on the way, or the directory itself, is no directory (any more)."""
        try:
            if len(relative) > _LONGEST:
                return self._open_long(relative)
            return self._open_listed(self.descriptor, relative)
        except OSError as exc:
            if exc.errno in (errno.ELOOP, errno.ENOTDIR):
                raise SwappedError(errno.ESTALE, "is no longer a directory", relative) from exc
            raise

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def _open_listed(self, below: int, relative: bytes) -> int:
        if os.geteuid() == 0:  # O_NOATIME is for the owner; root may need CAP_FOWNER for it
            try:
                return self._open_below(below, relative, _LIST | os.O_NOATIME)
            except PermissionError:
                pass
        return self._open_below(below, relative, _LIST)

    def _open_long(self, relative: bytes) -> int:
        below = os.dup(self.descriptor)
        try:
            while len(relative) > _LONGEST:
                cut = relative.rindex(b"/", 0, _LONGEST)
                deeper = self._open_below(below, relative[:cut], _WALK)
                os.close(below)
                below, relative = deeper, relative[cut + 1 :]
            return self._open_listed(below, relative)
        finally:
            os.close(below)


def open_by_steps(below: int, relative: bytes, flags: int) -> int:
    """Component by component, for kernels without openat2 (before Linux 5.6)."""
    *way, last = relative.split(b"/")
    current = os.dup(below)
    try:
        for name in way:
            deeper = os.open(name, _WALK, dir_fd=current)
            os.close(current)
            current = deeper
        return os.open(last, flags, dir_fd=current)
    finally:
        os.close(current)


def choose_open_below() -> OpenBelow:
    """openat2(2) where the kernel has it and no sandbox refuses it: one call instead of one per
    component."""
    open_at_once = _openat2()
    here = os.open(b"/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.close(open_at_once(here, b".", _WALK))
    except OSError:
        return open_by_steps
    finally:
        os.close(here)
    return open_at_once


def _openat2() -> OpenBelow:
    import ctypes

    class OpenHow(ctypes.Structure):
        _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))

    system_call = ctypes.CDLL(None, use_errno=True).syscall
    system_call.restype = ctypes.c_long
    number = ctypes.c_long(437)  # the same on every architecture Linux got since 5.6
    size = ctypes.c_size_t(ctypes.sizeof(OpenHow))
    no_symlinks = 0x04  # RESOLVE_NO_SYMLINKS of linux/openat2.h
    hows: dict[int, OpenHow] = {}

    def open_at_once(below: int, relative: bytes, flags: int) -> int:
        how = hows.get(flags)
        if how is None:
            how = hows[flags] = OpenHow(flags, 0, no_symlinks)
        while True:
            descriptor = int(system_call(number, below, relative, ctypes.byref(how), size))
            if descriptor >= 0:
                return descriptor
            code = ctypes.get_errno()
            if code != errno.EINTR:
                raise OSError(code, os.strerror(code), relative)

    return open_at_once
