"""One opened local directory: the hot path of every backup.

Invariant: all look-ups are relative to the descriptor, no symlink is followed, and nothing that
was listed is lost: it is an entry, or it is in `unreadable` with its reason.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, MutableMapping, Sequence
from types import TracebackType
from typing import Self

from drctl.ports import Entry, SwappedError
from drctl.sources.local_reader import LocalReader, extended_attributes_of

_ENCODING = sys.getfilesystemencoding()
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OPEN_QUIETLY = _OPEN | os.O_NOATIME  # for the owner of a file and for root
# what open(2) says when the name is now a symlink, a socket, a device without a driver, a directory
_SWAPPED = (errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.EISDIR)

OwnerNames = MutableMapping[tuple[int, int], tuple[str, str]]
Listing = tuple[list[Entry], list[tuple[bytes, str]]]


def list_entries(descriptor: int) -> Listing:
    """Entries sorted by name bytes, and the unreadable names. Sockets are left out: they are made
    by their servers. OSError when the directory itself cannot be read."""
    entries: list[Entry] = []
    unreadable: list[tuple[bytes, str]] = []
    look, make, keep = os.stat, tuple.__new__, entries.append
    # every name costs microseconds here: no function of our own is called per entry
    for name in sorted([text.encode(_ENCODING, "surrogateescape") for text in os.listdir(descriptor)]):
        try:
            found = look(name, dir_fd=descriptor, follow_symlinks=False)
        except OSError as exc:
            unreadable.append((name, reason(exc)))
            continue
        mode, inode, device, links, uid, gid, size, _, _, _ = found
        if mode & 0o170000 == stat.S_IFSOCK:
            continue
        mtime, ctime = found.st_mtime_ns, found.st_ctime_ns
        values = (name, mode, size, mtime, ctime, inode, device, links, uid, gid, found.st_rdev)
        keep(make(Entry, values))
    return entries, unreadable


def entry_of(name: bytes, seen: os.stat_result) -> Entry:
    """An `Entry` from stat(2) values."""
    return Entry(
        name, seen.st_mode, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino,
        seen.st_dev, seen.st_nlink, seen.st_uid, seen.st_gid, seen.st_rdev,
    )  # fmt: skip


def open_only(path: bytes, owner_names: OwnerNames, *, follow: bool) -> LocalDirectory:
    """The directory that holds `path`, with that one entry; "/" is held by itself, as ".". `follow`:
    the entry is what a symlink leads to. OSError when there is nothing."""
    parent, name = os.path.split(path)
    name = name or b"."
    descriptor = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        entry = entry_of(name, os.stat(name, dir_fd=descriptor, follow_symlinks=follow))
        listing: Listing = ([entry], [])
        if stat.S_ISSOCK(entry.mode):
            listing = ([], [(name, "a socket cannot be backed up")])
        return LocalDirectory(descriptor, lambda: listing, owner_names, follow=follow)
    except BaseException:
        os.close(descriptor)
        raise


def reason(error: OSError) -> str:
    """What the system says, without the name (it stands beside it)."""
    return error.strerror.lower() if error.strerror else type(error).__name__


class LocalDirectory:
    """Implements `ports.Directory`; owns its descriptor. One thread at a time."""

    __slots__ = ("_descriptor", "_follow", "_list", "_listing", "_owner_names", "_user")

    def __init__(
        self,
        descriptor: int,
        listing: Callable[[], Listing],
        owner_names: OwnerNames,
        *,
        follow: bool = False,
    ) -> None:
        """`listing` is called when it is first needed; `follow`: entries are what symlinks point to
        (the chain above the roots only)."""
        self._descriptor = descriptor
        self._list = listing
        self._listing: Listing | None = None
        self._owner_names = owner_names
        self._follow = follow
        self._user = os.geteuid()

    @property
    def entries(self) -> Sequence[Entry]:
        return self._listed()[0]

    @property
    def unreadable(self) -> Sequence[tuple[bytes, str]]:
        return self._listed()[1]

    def _listed(self) -> Listing:
        if self._listing is None:
            self._listing = self._list()
        return self._listing

    def open(self, entry: Entry) -> LocalReader:
        flags = _OPEN_QUIETLY if self._user in (0, entry.uid) else _OPEN
        try:
            descriptor = os.open(entry.name, flags, dir_fd=self._descriptor)
        except OSError as exc:
            descriptor = self._open_otherwise(entry, exc)
        try:
            opened = os.fstat(descriptor)
            mode, inode, device, *_ = opened
            if inode != entry.inode or device != entry.device or mode & 0o170000 != stat.S_IFREG:
                raise _swapped(entry)
            return LocalReader(descriptor, opened)
        except BaseException:
            os.close(descriptor)
            raise

    def _open_otherwise(self, entry: Entry, error: OSError) -> int:
        """What to do about a failed open(2); raises `error` where nothing is."""
        if error.errno in _SWAPPED:
            raise _swapped(entry) from error
        if error.errno == errno.EAGAIN:
            return self._open_leased(entry)
        if error.errno == errno.EPERM:  # root without CAP_FOWNER may read, but not quietly
            return os.open(entry.name, _OPEN, dir_fd=self._descriptor)
        raise error

    def _open_leased(self, entry: Entry) -> int:
        """A file under a lease (Samba's oplocks) opens as soon as its holder gives way, within
        /proc/sys/fs/lease-break-time; only a proven regular file is waited for."""
        handle = os.open(entry.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._descriptor)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise _swapped(entry)
            return os.open(b"/proc/self/fd/%d" % handle, os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(handle)

    def read_link(self, entry: Entry) -> bytes:
        try:
            return os.readlink(entry.name, dir_fd=self._descriptor)
        except OSError as exc:
            if exc.errno == errno.EINVAL:
                raise _swapped(entry) from exc
            raise

    def extended_attributes(self, entry: Entry) -> Sequence[tuple[bytes, bytes]]:
        # no xattr call takes a directory descriptor before Linux 6.13; /proc resolves ours
        # without walking the path again
        return extended_attributes_of(
            b"/proc/self/fd/%d/%b" % (self._descriptor, entry.name), follow=self._follow
        )

    def owner_names(self, uid: int, gid: int) -> tuple[str, str]:
        names = self._owner_names.get((uid, gid))
        if names is None:
            names = self._owner_names[uid, gid] = look_up_owner(uid, gid)
        return names

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def look_up_owner(uid: int, gid: int) -> tuple[str, str]:
    """User and group name from the system's databases, empty when unknown."""
    import grp
    import pwd

    try:
        user = pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        user = ""
    try:
        group = grp.getgrgid(gid).gr_name
    except (KeyError, OverflowError):
        group = ""
    return user, group


def _swapped(entry: Entry) -> SwappedError:
    return SwappedError(errno.ESTALE, "is no longer the file that was listed", entry.name)
