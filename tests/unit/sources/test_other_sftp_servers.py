"""SFTP servers that are not OpenSSH: short answers, no attributes in listings, hostile names.

paramiko's own server speaks the protocol; what it says is up to `Odd`.
"""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Iterator
from typing import Any

import paramiko
import pytest
from paramiko.common import AUTH_SUCCESSFUL, OPEN_SUCCEEDED
from paramiko.sftp import SFTP_PERMISSION_DENIED

from drctl.errors import SourceError
from drctl.ports import SwappedError
from drctl.sources.files import FilesOptions
from drctl.sources.remote_files import RemoteFilesSource

CONTENT = os.urandom(300_000)


class Logins(paramiko.ServerInterface):
    def check_auth_none(self, _username: str) -> int:
        return AUTH_SUCCESSFUL

    def get_allowed_auths(self, _username: str) -> str:
        return "none"

    def check_channel_request(self, _kind: str, _number: int) -> int:
        return OPEN_SUCCEEDED


class ShortHandle(paramiko.SFTPHandle):
    def read(self, offset: int, length: int) -> bytes:
        return CONTENT[offset : offset + min(length, 5_000)]  # never as much as was asked

    def stat(self) -> paramiko.SFTPAttributes:
        return attributes()


def attributes(name: str = "f", mode: int = stat.S_IFREG | 0o644) -> paramiko.SFTPAttributes:
    found = paramiko.SFTPAttributes()
    found.filename = name
    found.st_mode, found.st_size, found.st_uid, found.st_gid = mode, len(CONTENT), 0, 0
    found.st_atime = found.st_mtime = 1_700_000_000
    return found


class Odd(paramiko.SFTPServerInterface):
    listing: tuple[str, ...] = ()
    real: str | None = None

    def list_folder(self, _path: str) -> Any:
        bare = [paramiko.SFTPAttributes() for _ in self.listing]
        for one, name in zip(bare, self.listing, strict=True):
            one.filename = name
        return bare

    def lstat(self, path: str) -> Any:
        if path.endswith("/forbidden"):
            return SFTP_PERMISSION_DENIED
        return attributes(mode=stat.S_IFDIR | 0o755 if path.endswith(("/.", "/d")) else stat.S_IFREG | 0o644)

    stat = lstat

    def open(self, _path: str, flags: int, _attr: Any) -> Any:
        return ShortHandle(flags)

    def canonicalize(self, path: str) -> str:
        return self.real or path


class DirectRemote:
    """A `ports.Remote` straight to the odd server."""

    address = "odd@test:22"

    def __init__(self, client: paramiko.SFTPClient) -> None:
        self._client = client

    def sftp(self) -> paramiko.SFTPClient:
        return self._client

    def close(self) -> None:
        """The fixture closes."""


@pytest.fixture
def odd() -> Iterator[tuple[type[Odd], DirectRemote]]:
    class Server(Odd):
        pass

    here, there = socket.socketpair()
    server, client = paramiko.Transport(there), paramiko.Transport(here)
    server.add_server_key(paramiko.ECDSAKey.generate())
    server.set_subsystem_handler("sftp", paramiko.SFTPServer, Server)
    server.start_server(threading.Event(), Logins())  # the event: do not wait for the client
    client.start_client(timeout=10)
    client.auth_none("odd")
    channel = client.open_session(timeout=10)
    channel.settimeout(10)
    channel.invoke_subsystem("sftp")
    yield Server, DirectRemote(paramiko.SFTPClient(channel))
    client.close()
    server.close()


def source(remote: DirectRemote, **options: Any) -> RemoteFilesSource:
    return RemoteFilesSource(FilesOptions(paths=("/data",), **options), remote)


def test_short_answers_leave_no_gap(odd: tuple[type[Odd], DirectRemote]) -> None:
    server, remote = odd
    server.listing = ("f",)
    with source(remote).open_directory(b"/data") as directory:
        reader, buffer, whole = directory.open(directory.entries[0]), memoryview(bytearray(70_000)), b""
        while count := reader.readinto(buffer):
            whole += bytes(buffer[:count])
        assert whole == CONTENT
        assert not reader.changed()
        reader.close()


def test_entries_are_looked_at_where_the_listing_does_not_describe_them(
    odd: tuple[type[Odd], DirectRemote],
) -> None:
    server, remote = odd
    server.listing = ("f", "d", "forbidden")
    with source(remote).open_directory(b"/data") as directory:
        assert [(entry.name, stat.S_ISDIR(entry.mode)) for entry in directory.entries] == [
            (b"d", True),
            (b"f", False),
        ]
        assert directory.unreadable == [(b"forbidden", "permission denied")]


def test_names_no_file_can_have_are_reported_and_doubles_are_one(
    odd: tuple[type[Odd], DirectRemote],
) -> None:
    server, remote = odd
    server.listing = ("f", "../../etc/passwd", "..", ".", "f", "a\0b", "")
    with source(remote).open_directory(b"/data") as directory:
        assert [entry.name for entry in directory.entries] == [b"f"]
        assert [name for name, _ in directory.unreadable] == [b"../../etc/passwd", b"a\0b", b""]


def test_a_server_that_leads_elsewhere_is_flagged(odd: tuple[type[Odd], DirectRemote]) -> None:
    server, remote = odd
    found = source(remote)
    found.open_directory(b"/data").close()
    server.real = "/elsewhere"
    with pytest.raises(SwappedError):
        found.open_directory(b"/data/d")


def test_without_extensions_owners_have_no_names_and_file_systems_cannot_be_kept_apart(
    odd: tuple[type[Odd], DirectRemote],
) -> None:
    _, remote = odd
    with source(remote).open_directory(b"/data") as directory:
        assert directory.owner_names(0, 0) == ("", "")
    with pytest.raises(SourceError, match="cannot tell file systems apart"):
        source(remote, one_file_system=True).open_directory(b"/data/d")
