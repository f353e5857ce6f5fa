"""SFTP requests on their way together, for reading: paths and names are bytes.

Invariant: what the server answers is a result or an OSError; an answer that does not come is an
UnreachableError, and its connection is never used again (a late one would pass for the next one's).
paramiko's own calls decode names as UTF-8 and wait for each answer, hence the requests by hand.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from drctl.errors import UnreachableError
from drctl.ports import Entry, Remote

if TYPE_CHECKING:
    from paramiko import Message

# packet types and status codes: draft-ietf-secsh-filexfer-02, 3 and 7
OPEN, CLOSE, READ, LSTAT, FSTAT = 3, 4, 5, 7, 8
OPENDIR, READDIR, REALPATH, STAT, READLINK, EXTENDED = 11, 12, 16, 17, 19, 200
STATUS, HANDLE, DATA, NAME, ATTRIBUTES, EXTENDED_REPLY = 101, 102, 103, 104, 105, 201
_OK, _END, _NO_SUCH_FILE, _PERMISSION_DENIED, _UNSUPPORTED = 0, 1, 2, 3, 8
_ERRNO = {_NO_SUCH_FILE: errno.ENOENT, _PERMISSION_DENIED: errno.EACCES, _UNSUPPORTED: errno.ENOTSUP}
READ_FLAG = 1


class SftpSession:
    """The calling thread's file channel. Use an instance in that thread only."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._client: Any = remote.sftp()
        self._arrived: dict[int, tuple[int, Message]] = {}

    def ask(self, kind: int, *arguments: object) -> int:
        """Send a request without waiting; its number. Integers are 32 bits, `long_integer` 64."""
        with self._translated("ask"):
            number: int = self._client._async_request(self, kind, *arguments)
        return number

    def answer(self, number: int, expected: int) -> Message | None:
        """The answer's body; None where the server says "end of file". OSError as it says."""
        with self._translated("read an answer"):
            while number not in self._arrived:
                self._client._read_response()
        kind, message = self._arrived.pop(number)
        if kind == STATUS:
            code, text = message.get_int(), message.get_string()
            if code == _END:
                return None
            if code != _OK or expected != STATUS:
                raise OSError(
                    _ERRNO.get(code, errno.EIO), text.decode("utf-8", "replace").lower() or "failure"
                )
        elif kind != expected:
            raise self._broken(f"packet type {kind} where {expected} was expected")
        return message

    def call(self, kind: int, expected: int, *arguments: object) -> Message:
        """Ask and wait; an early end is an OSError."""
        message = self.answer(self.ask(kind, *arguments), expected)
        if message is None:
            raise OSError(errno.EIO, "the server ended early")
        return message

    def forget(self, kind: int, *arguments: object) -> None:
        """Ask and never look at the answer (closing what was only read)."""
        with self._translated("ask"):
            self._client._async_request(type(None), kind, *arguments)

    def disconnect(self) -> None:
        """Give the connection up, late answers and all."""
        channel = self._client.get_channel()
        if channel is not None:
            channel.get_transport().close()

    def _async_response(self, kind: int, message: Message, number: int) -> None:
        self._arrived[number] = (kind, message)  # paramiko calls this for every answer of ours

    @contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        from paramiko import SFTPError, SSHException

        try:
            yield
        except (OSError, EOFError, SSHException, SFTPError) as exc:
            self.disconnect()
            why = str(exc) or ("no answer in time" if isinstance(exc, TimeoutError) else "connection lost")
            raise UnreachableError(
                f"sftp {self._remote.address}: cannot {doing}: {why}", hint="is the host up?"
            ) from exc

    def _broken(self, what: str) -> UnreachableError:
        self.disconnect()
        return UnreachableError(
            f"sftp {self._remote.address}: {what}", hint="does another server answer there?"
        )


def long_integer(value: int) -> object:
    """A 64-bit argument of a request."""
    from paramiko.sftp import int64

    return int64(value)


def entry_from(name: bytes, attributes: Message) -> Entry | None:
    """An entry of the attributes that come next in a message (draft section 5); None when the server
    does not tell size, owner, mode and time. SFTP has no inode, link count, ctime or device numbers."""
    flags = attributes.get_int()
    size = attributes.get_int64() if flags & 1 else 0
    uid, gid = (attributes.get_int(), attributes.get_int()) if flags & 2 else (0, 0)
    mode = attributes.get_int() if flags & 4 else 0
    _, modified_s = (attributes.get_int(), attributes.get_int()) if flags & 8 else (0, 0)
    if flags & 0x8000_0000:
        for _ in range(attributes.get_int()):
            attributes.get_string()
            attributes.get_string()
    if flags & 15 != 15:
        return None
    return Entry(name, mode, size, modified_s * 10**9, 0, 0, 0, 0, uid, gid)


def names_of_owner(session: SftpSession, uid: int, gid: int) -> tuple[str, str]:
    """User and group name as the host knows them, empty where its server cannot tell (OpenSSH from
    9.0 on can: PROTOCOL, users-groups-by-id)."""
    try:
        message = session.call(
            EXTENDED,
            EXTENDED_REPLY,
            b"users-groups-by-id@openssh.com",
            struct.pack(">I", uid),
            struct.pack(">I", gid),
        )
    except OSError:
        return "", ""
    lists = message.get_string(), message.get_string()
    user, group = (packed[4:].decode("utf-8", "replace") for packed in lists)
    return user, group


def file_system_of(session: SftpSession, path: bytes) -> int:
    """An id of the file system `path` lies in (OpenSSH PROTOCOL, statvfs); OSError."""
    message = session.call(EXTENDED, EXTENDED_REPLY, b"statvfs@openssh.com", path)
    for _ in range(8):  # block sizes and counts
        message.get_int64()
    identifier: int = message.get_int64()
    return identifier
