"""A tree of files on another host, read over SFTP.

Invariant: the tree is the local one as far as SFTP can tell it: no xattrs and ACLs, no ctime, inode
or link count (hard links are stored as files of their own), times in whole seconds. An incremental
therefore trusts mtime and size alone; a full reads every byte. Files that SFTP cannot describe well
enough to be restored (devices) are reported, not guessed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

from drctl.errors import SourceError, UnreachableError
from drctl.ports import Entry, Remote, SwappedError
from drctl.sources import sftp_session as sftp
from drctl.sources.files import FilesOptions
from drctl.sources.local_directory import Listing, OwnerNames, reason
from drctl.sources.remote_reader import RemoteReader
from drctl.sources.roots import split
from drctl.sources.rules import Rules
from drctl.sources.sftp_session import SftpSession

_MOST_LISTINGS_ON_THE_WAY = 8  # answers of about a hundred names each
_NOT_TOLD = {stat.S_IFCHR: "a device's numbers", stat.S_IFBLK: "a device's numbers"}


class RemoteFilesSource:
    """Implements `ports.TreeSource` on a host of the plan."""

    Options = FilesOptions
    block_size: int | None = None
    trusts_metadata = True

    def __init__(self, options: FilesOptions, remote: Remote) -> None:
        """UsageError as `FilesSource`; `exclude_file` lies on the machine drctl runs on."""
        self._remote = remote
        self._rules = Rules(options)
        self.roots = self._rules.roots
        self._owner_names: OwnerNames = {}
        self._real_roots: dict[bytes, bytes] = {}

    def open_directory(self, path: bytes) -> RemoteDirectory:
        root, session = self._rules.root_of(path), SftpSession(self._remote)
        listing = self._list(session, root, path)
        return RemoteDirectory(self._remote, path, listing, self._owner_names)

    def open_root(self, path: bytes) -> RemoteDirectory:
        parent, name = split(path)
        kind = sftp.LSTAT if path in self.roots else sftp.STAT
        message = SftpSession(self._remote).call(kind, sftp.ATTRIBUTES, path)
        entry = sftp.entry_from(name, message)
        if entry is None:
            raise OSError(errno.EIO, "the server does not tell what it is", path)
        return RemoteDirectory(self._remote, parent, _storable([entry], []), self._owner_names)

    def close(self) -> None:
        self._remote.close()

    def _list(self, session: SftpSession, root: bytes, path: bytes) -> Listing:
        opened = session.ask(sftp.OPENDIR, path)
        real = session.ask(sftp.REALPATH, path)
        # OpenSSH leaves out silently what it may list but not look at; this fails in that case
        inside = session.ask(sftp.LSTAT, os.path.join(path, b"."))
        handle = _present(session.answer(opened, sftp.HANDLE)).get_string()
        try:
            self._prove_unswapped(session, root, path, _one_name(session.answer(real, sftp.NAME)))
            session.answer(inside, sftp.ATTRIBUTES)
            if self._rules.one_file_system and self._crosses(session, path):
                return [], []
            listing = _storable(*_read_names(session, handle, path))
        finally:
            session.forget(sftp.CLOSE, handle)
        if self._rules.take_nothing_away:
            return listing
        return self._rules.keep(path, listing, partial(_begins_with, session, path))

    def _prove_unswapped(self, session: SftpSession, root: bytes, path: bytes, real: bytes) -> None:
        """SFTP follows symlinks on the way; the server says where it came out."""
        real_root = self._real_roots.get(root)
        if real_root is None:
            parent, name = split(root)
            real_parent = _one_name(session.answer(session.ask(sftp.REALPATH, parent), sftp.NAME))
            real_root = self._real_roots[root] = b"/" if root == b"/" else os.path.join(real_parent, name)
        if real != (os.path.join(real_root, path[len(root) :].lstrip(b"/")).rstrip(b"/") or b"/"):
            raise SwappedError(errno.ESTALE, "is no longer a directory", path)

    def _crosses(self, session: SftpSession, path: bytes) -> bool:
        nearest = self._rules.nearest_named(path)
        try:
            return nearest != path and sftp.file_system_of(session, path) != sftp.file_system_of(
                session, nearest
            )
        except OSError as exc:
            if exc.errno != errno.ENOTSUP:
                raise
            raise SourceError(
                f"the server of {self._remote.address} cannot tell file systems apart",
                hint="drop one_file_system and exclude the mount points by name",
            ) from exc


class RemoteDirectory:
    """Implements `ports.Directory`. Nothing stays open on the host."""

    def __init__(self, remote: Remote, path: bytes, listing: Listing, owner_names: OwnerNames) -> None:
        self._remote = remote
        self._path = path
        self.entries: Sequence[Entry]
        self.unreadable: Sequence[tuple[bytes, str]]
        self.entries, self.unreadable = listing
        self._owner_names = owner_names

    def open(self, entry: Entry) -> RemoteReader:
        """As the port says, as far as SFTP allows: it follows a symlink that appears and vanishes
        again around the opening. A FIFO swapped in blocks the server's process, so it is found when
        the answer is overdue, and costs the connection."""
        path = os.path.join(self._path, entry.name)
        session = SftpSession(self._remote)
        opening = session.ask(sftp.OPEN, path, sftp.READ_FLAG, 0)
        looking = session.ask(sftp.LSTAT, path)
        try:
            handle = _present(session.answer(opening, sftp.HANDLE)).get_string()
        except UnreachableError:
            self._explain_silence(path)
            raise
        try:
            listed = sftp.entry_from(entry.name, _present(session.answer(looking, sftp.ATTRIBUTES)))
            if listed is None or not stat.S_ISREG(listed.mode):
                raise _swapped(path)
        except OSError:
            session.forget(sftp.CLOSE, handle)
            raise
        opened_number = session.ask(sftp.FSTAT, handle)
        reader = RemoteReader(session, handle, listed)  # reads are on their way before we are sure
        try:
            opened = sftp.entry_from(entry.name, _present(session.answer(opened_number, sftp.ATTRIBUTES)))
            # size and time may differ while it is written; `changed` will tell
            if opened is None or (opened.mode, opened.uid, opened.gid) != (
                listed.mode,
                listed.uid,
                listed.gid,
            ):
                raise _swapped(path)
        except OSError:
            reader.close()
            raise
        return reader

    def _explain_silence(self, path: bytes) -> None:
        message = SftpSession(self._remote).call(sftp.LSTAT, sftp.ATTRIBUTES, path)
        now = sftp.entry_from(b"", message)
        if now is not None and not stat.S_ISREG(now.mode):
            raise _swapped(path)

    def read_link(self, entry: Entry) -> bytes:
        session = SftpSession(self._remote)
        number = session.ask(sftp.READLINK, os.path.join(self._path, entry.name))
        return _one_name(session.answer(number, sftp.NAME))

    def extended_attributes(self, _entry: Entry) -> Sequence[tuple[bytes, bytes]]:
        """SFTP has none."""
        return ()

    def owner_names(self, uid: int, gid: int) -> tuple[str, str]:
        names = self._owner_names.get((uid, gid))
        if names is None:
            names = sftp.names_of_owner(SftpSession(self._remote), uid, gid)
            self._owner_names[uid, gid] = names
        return names

    def close(self) -> None:
        """Nothing is held open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _swapped(path: bytes) -> SwappedError:
    return SwappedError(errno.ESTALE, "is no longer the file that was listed", path)


def _read_names(session: SftpSession, handle: bytes, path: bytes) -> Listing:
    found: dict[bytes, Entry | None] = {}
    unreadable: list[tuple[bytes, str]] = []
    asked, ended = [session.ask(sftp.READDIR, handle) for _ in range(2)], False
    while asked:
        message = session.answer(asked.pop(0), sftp.NAME)
        if message is None:
            ended = True
            continue
        for _ in range(message.get_int()):
            name, _, entry = _named_entry(message)
            if b"/" in name or b"\0" in name or not name:
                unreadable.append((name, "the server gave it a name no file can have"))
            elif name not in (b".", b".."):
                found[name] = entry
        while not ended and len(asked) < _MOST_LISTINGS_ON_THE_WAY:
            asked.append(session.ask(sftp.READDIR, handle))
    entries = []
    for name in sorted(found):
        try:
            entries.append(found[name] or _look_at(session, path, name))
        except OSError as exc:
            unreadable.append((name, reason(exc)))
    return entries, unreadable


def _named_entry(message: Any) -> tuple[bytes, bytes, Entry | None]:
    name, long_name = message.get_string(), message.get_string()
    return name, long_name, sftp.entry_from(name, message)


def _look_at(session: SftpSession, path: bytes, name: bytes) -> Entry:
    entry = sftp.entry_from(name, session.call(sftp.LSTAT, sftp.ATTRIBUTES, os.path.join(path, name)))
    if entry is None:
        raise OSError(errno.EIO, "the server does not tell what it is")
    return entry


def _storable(entries: list[Entry], unreadable: list[tuple[bytes, str]]) -> Listing:
    """Sockets are left out, devices reported."""
    kept = []
    for entry in entries:
        kind = stat.S_IFMT(entry.mode)
        if what := _NOT_TOLD.get(kind):
            unreadable.append((entry.name, f"SFTP does not tell {what}"))
        elif kind != stat.S_IFSOCK:
            kept.append(entry)
    return kept, unreadable


def _begins_with(session: SftpSession, path: bytes, entry: Entry, signature: bytes) -> bool:
    if not stat.S_ISREG(entry.mode):
        return False
    try:
        handle = session.call(
            sftp.OPEN, sftp.HANDLE, os.path.join(path, entry.name), sftp.READ_FLAG, 0
        ).get_string()
    except OSError:
        return False
    try:
        data = session.call(sftp.READ, sftp.DATA, handle, sftp.long_integer(0), len(signature))
        return bool(data.get_string() == signature)
    except OSError:
        return False
    finally:
        session.forget(sftp.CLOSE, handle)


def _present(message: Any) -> Any:
    if message is None:
        raise OSError(errno.EIO, "the server ended early")
    return message


def _one_name(message: Any) -> bytes:
    message = _present(message)
    if message.get_int() != 1:
        raise OSError(errno.EIO, "the server named nothing")
    name: bytes = message.get_string()
    return name
