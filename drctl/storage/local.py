"""A directory as storage: the repository's files in restic's layout, durable when acknowledged.

Invariant: a key's file appears with all its bytes on disk or not at all, and is never replaced.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from drctl.errors import StorageError
from drctl.ports import Buffer, StoredFile
from drctl.storage.durable import make_directories, new_file, publish, remove_abandoned, sync_directory
from drctl.storage.keys import check_key, check_prefix, is_visible, temporary_name
from drctl.storage.os_errors import translated
from drctl.storage.probe import keeps_writers_apart


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """`path`: the repository's directory; it is made, mode 0700, when the first file is saved."""

    path: str


class LocalStorage:
    """`ports.Storage` over a directory of this machine (or one mounted there)."""

    Options = LocalOptions

    def __init__(self, options: LocalOptions) -> None:
        self._base = os.path.abspath(os.path.expanduser(options.path))
        self._settled: set[str] = set()
        self._swept: set[str] = set()

    @property
    def location(self) -> str:
        """The absolute path."""
        return self._base

    def save(self, key: str, parts: Sequence[Buffer]) -> None:
        """See `ports.Storage.save`."""
        path = self._path(key)
        directory = os.path.dirname(path)
        with translated(self._base, f"save {key}"):
            self._settle(directory)
            temporary = os.path.join(directory, temporary_name())
            try:
                with new_file(temporary, parts):
                    publish(temporary, path)
            except FileExistsError:
                # whoever saved it may not have come to its own fsync: a retry must be able to
                # trust what it finds
                sync_directory(directory)
                raise
            self._acknowledge(directory, path)

    def load(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `ports.Storage.load`."""
        with translated(self._base, f"load {key}"):
            descriptor = self._open(key)
            try:
                wanted = max(os.fstat(descriptor).st_size - offset, 0)
                if length is not None:
                    wanted = min(wanted, length)
                return _read(descriptor, offset, wanted)
            finally:
                os.close(descriptor)

    def stat(self, key: str) -> StoredFile:
        """See `ports.Storage.stat`."""
        with translated(self._base, f"look at {key}"):
            status = os.stat(self._path(key), follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            raise StorageError(f"{self._base}: {key} is not a regular file")
        return _stored_file(key, status)

    def list(self, prefix: str) -> Iterator[StoredFile]:
        """See `ports.Storage.list`. A missing base directory is an error, not an empty storage:
        it may be a disk that is not mounted."""
        check_prefix(prefix)
        with translated(self._base, f"list {prefix or 'everything'}"):
            os.stat(self._base)
            yield from _walk(os.path.join(self._base, prefix), prefix)

    def delete(self, key: str) -> None:
        """See `ports.Storage.delete`."""
        path = self._path(key)
        with translated(self._base, f"delete {key}"):
            try:
                os.unlink(path)
            except FileNotFoundError:
                return
            sync_directory(os.path.dirname(path))

    def refuses_overwrite(self) -> bool:
        """See `ports.Storage.refuses_overwrite`."""
        return keeps_writers_apart(self)

    def retains_files(self) -> None:
        """Never claimed: whoever may write here may delete."""

    def close(self) -> None:
        """Nothing is held open."""

    def _path(self, key: str) -> str:
        return os.path.join(self._base, check_key(key))

    def _open(self, key: str) -> int:
        # non-blocking: a FIFO planted in the repository must not hang the run
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(self._path(key), flags)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise StorageError(f"{self._base}: {key} is not a regular file")
        return descriptor

    def _settle(self, directory: str) -> None:
        """Make a directory whose own name, and those above it, survive a power cut. One that is
        there already may have been made by a run that was killed before its fsync."""
        if directory not in self._settled or not os.path.isdir(directory):
            make_directories(directory)
            if directory != self._base:
                parent = os.path.dirname(directory)
                siblings = os.listdir(parent)  # one fsync makes the names of all of them durable
                sync_directory(parent)
                self._settled.update(os.path.join(parent, name) for name in siblings)
                self._settle(parent)
            self._settled.add(directory)
        if directory not in self._swept:
            self._swept.add(directory)
            remove_abandoned(directory, os.listdir(directory))

    def _acknowledge(self, directory: str, path: str) -> None:
        try:
            sync_directory(directory)
        except OSError:
            os.unlink(path)  # not durable, so not saved
            raise


def _read(descriptor: int, offset: int, wanted: int) -> bytes:
    data = os.pread(descriptor, wanted, offset)
    if len(data) == wanted or not data:
        return data
    pieces = [data]  # one read is capped at 2 GiB
    while piece := os.pread(descriptor, wanted - sum(map(len, pieces)), offset + sum(map(len, pieces))):
        pieces.append(piece)
    return b"".join(pieces)


def _walk(directory: str, prefix: str) -> Iterator[StoredFile]:
    try:
        entries = os.scandir(directory)
    except FileNotFoundError:  # no such directory yet: no such keys
        return
    with entries:
        for entry in entries:
            if not is_visible(entry.name):
                continue
            if entry.is_dir(follow_symlinks=True):
                yield from _walk(entry.path, f"{prefix}{entry.name}/")
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError as exc:
                if exc.errno == errno.ENOENT:  # deleted meanwhile
                    continue
                raise
            if stat.S_ISREG(status.st_mode):
                yield _stored_file(prefix + entry.name, status)


def _stored_file(key: str, status: os.stat_result) -> StoredFile:
    return StoredFile(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))
