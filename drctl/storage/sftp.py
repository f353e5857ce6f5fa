"""A directory of another host as storage, reached by SFTP.

Invariant: the order of `durable` holds over the wire: write, fsync, rename without replacing, fsync
the directory, each confirmed by the server; a connection on which an answer is missing is never
used again.
"""

from __future__ import annotations

import posixpath
import stat
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from drctl.errors import AlreadyExistsError, DrctlError, StorageError, UnreachableError
from drctl.ports import Buffer, Remote, StoredFile
from drctl.storage.keys import check_key, check_prefix, is_visible, temporary_name
from drctl.storage.os_errors import translate
from drctl.storage.probe import keeps_writers_apart
from drctl.storage.sftp_requests import fsync, read_range, write_all

if TYPE_CHECKING:
    from paramiko import SFTPAttributes, SFTPClient, SFTPFile


@dataclass(frozen=True, slots=True)
class SftpOptions:
    """`path` on `host` (a name of the plan) or on `address`. The rest is as in `RemoteOptions`."""

    path: str
    host: str | None = None
    address: str | None = None
    port: int = 22
    user: str | None = None
    identity_file: str | None = None
    known_hosts: str | None = None
    timeout_s: float = 30.0
    require_fsync: bool = True
    """False accepts a server without fsync@openssh.com: a power cut there may lose what it
    acknowledged."""


class SftpStorage:
    """`ports.Storage` over `ports.Remote.sftp()`."""

    Options = SftpOptions

    def __init__(self, options: SftpOptions, remote: Remote) -> None:
        self._options = options
        self._remote = remote
        self._base = posixpath.normpath(options.path)
        self._settled: set[str] = set()

    @property
    def location(self) -> str:
        """`sftp://user@host:port/path`."""
        return f"sftp://{self._remote.address}/{self._base.lstrip('/')}"

    def save(self, key: str, parts: Sequence[Buffer]) -> None:
        """See `ports.Storage.save`."""
        path = self._path(key)
        directory = posixpath.dirname(path)
        with self._session(f"save {key}") as sftp:
            self._settle(sftp, directory)
            temporary = posixpath.join(directory, temporary_name())
            try:
                self._write(sftp, temporary, parts)
                self._publish(sftp, temporary, path, key)
            except DrctlError:
                raise
            except OSError:
                with suppress(OSError):
                    sftp.remove(temporary)
                raise

    def load(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `ports.Storage.load`."""
        with self._session(f"load {key}") as sftp, sftp.open(self._path(key), "rb") as file:
            status = file.stat()
            self._check_regular(key, status)
            wanted = max((status.st_size or 0) - offset, 0)
            if length is not None:
                wanted = min(wanted, length)
            data = read_range(sftp, file, offset, wanted)
            if len(data) == wanted:
                return data
        raise UnreachableError(f"{self.location}: {key} was cut short: {len(data)} of {wanted} bytes arrived")

    def stat(self, key: str) -> StoredFile:
        """See `ports.Storage.stat`."""
        with self._session(f"look at {key}") as sftp:
            status = sftp.lstat(self._path(key))
        self._check_regular(key, status)
        return _stored_file(key, status)

    def list(self, prefix: str) -> Iterator[StoredFile]:
        """See `ports.Storage.list`. A missing base directory is an error, not an empty storage."""
        check_prefix(prefix)
        with self._session(f"list {prefix or 'everything'}") as sftp:
            sftp.stat(self._base)
            pending = deque((prefix,))
            while pending:
                yield from self._list_directory(sftp, pending)

    def delete(self, key: str) -> None:
        """See `ports.Storage.delete`."""
        path = self._path(key)
        with self._session(f"delete {key}") as sftp:
            try:
                sftp.remove(path)
            except FileNotFoundError:
                return
            self._sync_directory(sftp, posixpath.dirname(path))

    def refuses_overwrite(self) -> bool:
        """See `ports.Storage.refuses_overwrite`."""
        return keeps_writers_apart(self)

    def retains_files(self) -> None:
        """Never claimed: whoever may write here may delete."""

    def close(self) -> None:
        """See `ports.Storage.close`."""
        self._remote.close()

    # --- one save ---

    def _write(self, sftp: SFTPClient, path: str, parts: Sequence[Buffer]) -> None:
        with sftp.open(path, "wx") as file:
            file.chmod(0o600)
            write_all(sftp, file, parts)
            self._fsync(sftp, file)

    def _publish(self, sftp: SFTPClient, temporary: str, path: str, key: str) -> None:
        directory = posixpath.dirname(path)
        try:
            # SFTP version 3: a rename onto a taken name fails (OpenSSH does it by link and unlink)
            sftp.rename(temporary, path)
        except OSError as exc:
            with suppress(OSError):
                sftp.remove(temporary)
            if not _is_there(sftp, path):
                raise
            # whoever saved it may not have come to its own fsync: a retry must be able to trust
            # what it finds
            self._sync_directory(sftp, directory)
            raise AlreadyExistsError(f"{self.location}: {key} is there already") from exc
        try:
            self._sync_directory(sftp, directory)
        except OSError:
            sftp.remove(path)  # not durable, so not saved
            raise

    def _settle(self, sftp: SFTPClient, directory: str) -> None:
        """Make a directory whose name, and those above it, survive a power cut of the server."""
        if directory in self._settled:
            return
        missing = []
        while directory not in ("/", "", ".") and not _is_there(sftp, directory):
            missing.append(directory)
            directory = posixpath.dirname(directory)
        for made in reversed(missing):
            try:
                sftp.mkdir(made, 0o700)
            except OSError:
                if not _is_there(sftp, made):  # another thread was not faster: it cannot be made
                    raise
        self._settle_names(sftp, missing[0] if missing else directory)

    def _settle_names(self, sftp: SFTPClient, directory: str) -> None:
        # one that is there already may have been made by a run that was killed before its fsync
        while directory not in self._settled and directory not in ("/", "", "."):
            parent = posixpath.dirname(directory)
            siblings = sftp.listdir(parent or ".") if directory.startswith(f"{self._base}/") else ()
            self._sync_directory(sftp, parent or ".")
            self._settled.update(posixpath.join(parent, name) for name in siblings)
            self._settled.add(directory)
            if directory == self._base:
                return
            directory = parent

    def _sync_directory(self, sftp: SFTPClient, directory: str) -> None:
        if not self._options.require_fsync:
            return
        with sftp.open(directory, "r") as handle:
            self._fsync(sftp, handle)

    def _fsync(self, sftp: SFTPClient, file: SFTPFile) -> None:
        if not fsync(sftp, file) and self._options.require_fsync:
            raise StorageError(
                f"{self.location}: the server cannot fsync, so nothing it acknowledges is safe",
                hint="use a server with fsync@openssh.com, or set require_fsync: false and accept the loss",
            )

    # --- one answer ---

    def _path(self, key: str) -> str:
        return posixpath.join(self._base, check_key(key))

    def _list_directory(self, sftp: SFTPClient, pending: deque[str]) -> Iterator[StoredFile]:
        prefix = pending.pop()
        try:
            entries = sftp.listdir_attr(posixpath.join(self._base, prefix))
        except FileNotFoundError:  # no such directory yet: no such keys
            return
        for entry in entries:
            if not is_visible(entry.filename):
                continue
            mode = entry.st_mode or 0
            if stat.S_ISDIR(mode):
                pending.append(f"{prefix}{entry.filename}/")
            elif stat.S_ISREG(mode):
                yield _stored_file(prefix + entry.filename, entry)

    def _check_regular(self, key: str, status: SFTPAttributes) -> None:
        if not stat.S_ISREG(status.st_mode or 0):
            raise StorageError(f"{self.location}: {key} is not a regular file")

    @contextmanager
    def _session(self, doing: str) -> Iterator[SFTPClient]:
        """A channel for one operation. What the server answers is translated; where an answer did
        not come, the connection is closed: a late one would be taken for the next one's."""
        from paramiko import SFTPError, SSHException  # noqa: PLC0415

        sftp = self._remote.sftp()
        try:
            yield sftp
        except (TimeoutError, EOFError, SSHException, SFTPError) as exc:
            _disconnect(sftp)
            reason = str(exc) or ("no answer in time" if isinstance(exc, TimeoutError) else "connection lost")
            raise UnreachableError(f"{self.location}: cannot {doing}: {reason}", hint="is sshd up?") from exc
        except OSError as exc:
            if _is_cut(sftp):
                raise UnreachableError(f"{self.location}: cannot {doing}: {exc}", hint="is sshd up?") from exc
            raise _answered(exc, self.location, doing) from exc


def _answered(error: OSError, location: str, doing: str) -> DrctlError:
    translated = translate(error, location, doing)
    if error.errno is None:  # SFTP says no more than "Failure" when the disk is full
        hint = "is the disk there full? SFTP tells no reason; look at the server's log"
        return StorageError(translated.message, hint=hint)
    return translated


def _is_there(sftp: SFTPClient, path: str) -> bool:
    try:
        sftp.lstat(path)
    except FileNotFoundError:
        return False
    return True


def _is_cut(sftp: SFTPClient) -> bool:
    channel = sftp.get_channel()
    return channel is None or channel.closed or not channel.get_transport().is_active()


def _disconnect(sftp: SFTPClient) -> None:
    channel = sftp.get_channel()
    if channel is not None:
        channel.get_transport().close()


def _stored_file(key: str, status: SFTPAttributes) -> StoredFile:
    return StoredFile(key, status.st_size or 0, datetime.fromtimestamp(status.st_mtime or 0, UTC))
