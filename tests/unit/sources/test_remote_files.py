"""A file tree of another host, over a real sshd."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from drctl.errors import UnreachableError, UsageError
from drctl.ports import Entry, SwappedError
from drctl.sources.files import FilesOptions, FilesSource
from drctl.sources.remote_files import RemoteDirectory, RemoteFilesSource
from tests.servers.ssh import SshServer, ssh_server

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mount, mknod and setpriv need root")
AS_NOBODY = "ForceCommand setpriv --reuid=65534 --regid=65534 --clear-groups /usr/lib/openssh/sftp-server"


def source(server: SshServer, *paths: Path, timeout_s: float = 10.0, **options: Any) -> RemoteFilesSource:
    return RemoteFilesSource(
        FilesOptions(paths=tuple(map(str, paths)), **options), server.remote(timeout_s=timeout_s)
    )


def read(directory: RemoteDirectory, entry: Entry, size: int = 100_000) -> bytes:
    reader, buffer, parts = directory.open(entry), memoryview(bytearray(size)), []
    while count := reader.readinto(buffer):
        parts.append(bytes(buffer[:count]))
    assert not reader.changed()
    reader.close()
    return b"".join(parts)


def by_name(directory: RemoteDirectory) -> dict[bytes, Entry]:
    return {entry.name: entry for entry in directory.entries}


def test_the_tree_is_the_local_one_as_far_as_sftp_tells(sshd: SshServer, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    for name in (b"plain", b"\xff\xfe", b"new\nline", b"\xf0\x9f\x98\x80"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(name)
    os.utime(tmp_path / "plain", (1, 1_600_000_000))
    os.mkfifo(tmp_path / "fifo")
    path = os.fsencode(tmp_path)
    with FilesSource(FilesOptions(paths=(str(tmp_path),))).open_directory(path) as directory:
        here = [
            entry._replace(
                ctime_ns=0, inode=0, device=0, links=0, mtime_ns=entry.mtime_ns // 10**9 * 10**9, rdev=0
            )
            for entry in directory.entries
        ]
    found = source(sshd, tmp_path)
    with found.open_directory(path) as remote:
        assert list(remote.entries) == here
        assert list(remote.unreadable) == []
        names = by_name(remote)
        assert remote.read_link(names[b"link"]) == b"nowhere"
        assert read(remote, names[b"\xff\xfe"]) == b"\xff\xfe"
        assert read(remote, names[b"new\nline"]) == b"new\nline"
        assert remote.owner_names(0, 0) in (("root", "root"), ("", ""))
        assert remote.owner_names(4_000_000_000, 4_000_000_000) == ("", "")
    with found.open_root(path) as root:
        assert [entry.name for entry in root.entries] == [os.fsencode(tmp_path.name)]


@pytest.mark.parametrize("size", [0, 1, 32_767, 32_768, 32_769, 5_000_001])
def test_files_of_any_size_arrive_byte_for_byte(sshd: SshServer, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "f").write_bytes(data)
    with source(sshd, tmp_path).open_directory(os.fsencode(tmp_path)) as directory:
        assert read(directory, directory.entries[0], 70_001) == data


def test_a_directory_of_many_names_is_listed_whole(sshd: SshServer, tmp_path: Path) -> None:
    names = [b"%05d" % number for number in range(3000)]
    for name in names:
        (tmp_path / name.decode()).touch()
    with source(sshd, tmp_path).open_directory(os.fsencode(tmp_path)) as directory:
        assert [entry.name for entry in directory.entries] == names


@pytest.mark.parametrize("change", ["grow", "shrink", "touch"])
def test_a_file_that_changes_during_the_read_is_flagged(sshd: SshServer, tmp_path: Path, change: str) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(8 << 20))  # more than is read ahead
    with source(sshd, tmp_path).open_directory(os.fsencode(tmp_path)) as directory:
        reader, buffer, total = directory.open(directory.entries[0]), memoryview(bytearray(1 << 20)), 0
        total += reader.readinto(buffer)
        match change:
            case "grow":
                with path.open("ab") as more:
                    more.write(bytes(100_000))
            case "shrink":
                os.truncate(path, 4 << 20)
            case "touch":
                os.utime(path, (5, 5))
        while count := reader.readinto(buffer):
            total += count
        assert total == {"grow": (8 << 20) + 100_000, "shrink": 4 << 20, "touch": 8 << 20}[change]
        assert reader.changed()
        reader.close()


def test_an_abandoned_reader_leaves_a_usable_channel(sshd: SshServer, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(os.urandom(8 << 20))
    (tmp_path / "small").write_bytes(b"small")
    with source(sshd, tmp_path).open_directory(os.fsencode(tmp_path)) as directory:
        names = by_name(directory)
        for _ in range(3):
            reader = directory.open(names[b"big"])
            reader.readinto(memoryview(bytearray(10)))
            reader.close()
            assert read(directory, names[b"small"]) == b"small"


@pytest.mark.parametrize("kind", ["symlink", "directory", "gone"])
def test_a_file_swapped_after_the_listing_is_flagged(sshd: SshServer, tmp_path: Path, kind: str) -> None:
    path, other = tmp_path / "f", tmp_path / "other"
    path.write_bytes(b"x")
    other.write_bytes(b"secret")
    with source(sshd, tmp_path).open_directory(os.fsencode(tmp_path)) as directory:
        entry = by_name(directory)[b"f"]
        path.unlink()
        if kind == "symlink":
            path.symlink_to(other)
        elif kind == "directory":
            path.mkdir()
        with pytest.raises(FileNotFoundError if kind == "gone" else SwappedError):
            directory.open(entry)
        assert read(directory, by_name(directory)[b"other"]) == b"secret"


def test_a_file_swapped_for_a_fifo_costs_the_timeout_and_not_the_run(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    path, other = tmp_path / "tree/f", tmp_path / "tree/other"
    path.parent.mkdir()
    path.write_bytes(b"x")
    other.write_bytes(b"fine")
    with (
        ssh_server(tmp_path / "server") as server,
        source(server, path.parent, timeout_s=2).open_directory(os.fsencode(path.parent)) as directory,
    ):
        names = by_name(directory)
        path.unlink()
        os.mkfifo(path)
        started = time.monotonic()
        with pytest.raises(SwappedError):
            directory.open(names[b"f"])
        assert time.monotonic() - started < 8
        assert read(directory, names[b"other"]) == b"fine"
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))  # lets the server's process go


def test_a_directory_swapped_for_a_symlink_is_not_followed(sshd: SshServer, tmp_path: Path) -> None:
    (tmp_path / "root/a/b").mkdir(parents=True)
    (tmp_path / "secret/b").mkdir(parents=True)
    found = source(sshd, tmp_path / "root")
    found.open_directory(os.fsencode(tmp_path / "root/a/b")).close()
    (tmp_path / "root/a").rename(tmp_path / "gone")
    (tmp_path / "root/a").symlink_to(tmp_path / "secret")
    for path in ("root/a", "root/a/b"):
        with pytest.raises(SwappedError):
            found.open_directory(os.fsencode(tmp_path / path))


def test_a_root_reached_through_a_symlink_is_read(sshd: SshServer, tmp_path: Path) -> None:
    (tmp_path / "real/data").mkdir(parents=True)
    (tmp_path / "real/data/f").write_bytes(b"x")
    (tmp_path / "way").symlink_to("real")
    found = source(sshd, tmp_path / "way/data")
    with found.open_directory(os.fsencode(tmp_path / "way/data")) as directory:
        assert [entry.name for entry in directory.entries] == [b"f"]
    with found.open_root(os.fsencode(tmp_path / "way")) as directory:
        assert stat.S_ISDIR(directory.entries[0].mode)
    with pytest.raises(FileNotFoundError):
        source(sshd, tmp_path / "none").open_root(os.fsencode(tmp_path / "none"))


def test_the_whole_file_system_of_a_host_is_a_root(sshd: SshServer) -> None:
    found = source(sshd, Path("/"))
    with found.open_directory(b"/") as directory:
        assert {b"etc", b"usr"} <= set(by_name(directory))
    with found.open_directory(b"/etc") as directory:
        assert b"passwd" in by_name(directory)


@needs_root
def test_devices_are_reported_and_sockets_are_left_out(sshd: SshServer, tmp_path: Path) -> None:
    os.mknod(tmp_path / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        with source(sshd, tmp_path).open_directory(os.fsencode(tmp_path)) as directory:
            assert list(directory.entries) == []
            assert list(directory.unreadable) == [(b"null", "SFTP does not tell a device's numbers")]


@needs_root
def test_what_the_login_may_not_read_is_an_error_at_its_place(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for parent in [tmp_path, *tmp_path.parents]:
        if len(parent.parts) > 2:
            parent.chmod(parent.stat().st_mode | 0o055)
    (tree / "closed").mkdir(parents=True)
    (tree / "listed").mkdir()
    (tree / "listed/x").write_bytes(b"x")
    (tree / "file").write_bytes(b"x")
    for name, mode in (("closed", 0o700), ("listed", 0o744), ("file", 0o600)):
        (tree / name).chmod(mode)
    (tmp_path / "server").mkdir()
    with ssh_server(tmp_path / "server", AS_NOBODY) as server:
        found = source(server, tree)
        with found.open_directory(os.fsencode(tree)) as directory:
            names = by_name(directory)
            assert sorted(names) == [b"closed", b"file", b"listed"]
            with pytest.raises(PermissionError):
                directory.open(names[b"file"])
        for name in ("closed", "listed"):  # OpenSSH would show the second as empty
            with pytest.raises(PermissionError):
                found.open_directory(os.fsencode(tree / name))


def test_excludes_tags_and_markers_hold_on_another_host(sshd: SshServer, tmp_path: Path) -> None:
    signature = "Signature: 8a477f597d28d172789f06886806bc55"
    for name, text in (
        ("a.o", ""),
        ("keep.o", ""),
        ("cache/CACHEDIR.TAG", signature),
        ("cache/x", ""),
        ("fake/CACHEDIR.TAG", "no"),
        ("fake/x", ""),
        ("m/.skip", ""),
        ("m/x", ""),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = source(
        sshd, tmp_path, exclude=("*.o", "!keep.o"), exclude_caches=True, exclude_if_present=(".skip",)
    )
    for where, expected in (
        (tmp_path, [b"cache", b"fake", b"keep.o", b"m"]),
        (tmp_path / "cache", [b"CACHEDIR.TAG"]),
        (tmp_path / "fake", [b"CACHEDIR.TAG", b"x"]),
        (tmp_path / "m", [b".skip"]),
    ):
        with found.open_directory(os.fsencode(where)) as directory:
            assert [entry.name for entry in directory.entries] == expected
    with pytest.raises(UsageError):
        source(sshd, tmp_path, tmp_path / "a.o", exclude=("*.o",))


@needs_root
def test_a_mount_point_of_another_host_is_kept_empty(sshd: SshServer, tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path / "mnt"], check=True)
    try:
        (tmp_path / "mnt/f").write_bytes(b"x")
        path = os.fsencode(tmp_path / "mnt")
        assert list(source(sshd, tmp_path, one_file_system=True).open_directory(path).entries) == []
        assert len(source(sshd, tmp_path).open_directory(path).entries) == 1
        assert len(source(sshd, tmp_path / "mnt", one_file_system=True).open_directory(path).entries) == 1
    finally:
        # lazily: the server may not have come to our last close yet
        subprocess.run(["umount", "--lazy", tmp_path / "mnt"], check=True)


def test_a_host_that_falls_silent_is_unreachable_in_time(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/f").write_bytes(bytes(9 << 20))
    with ssh_server(tmp_path / "server") as server:
        found = source(server, tmp_path / "tree", timeout_s=1)
        with found.open_directory(os.fsencode(tmp_path / "tree")) as directory:
            reader, buffer = directory.open(directory.entries[0]), memoryview(bytearray(1 << 20))
            assert reader.readinto(buffer)
            frozen = [server.pid, *descendants(server.pid)]
            for process in frozen:
                os.kill(process, signal.SIGSTOP)
            started = time.monotonic()
            try:
                with pytest.raises(UnreachableError):
                    while reader.readinto(buffer):
                        pass
                with pytest.raises(UnreachableError):
                    found.open_directory(os.fsencode(tmp_path / "tree"))
            finally:
                for process in frozen:
                    os.kill(process, signal.SIGCONT)
            assert time.monotonic() - started < 15


def test_a_host_that_dies_is_unreachable_and_not_an_end_of_file(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/f").write_bytes(bytes(9 << 20))
    with ssh_server(tmp_path / "server") as server:
        found = source(server, tmp_path / "tree", timeout_s=3)
        with found.open_directory(os.fsencode(tmp_path / "tree")) as directory:
            reader, buffer = directory.open(directory.entries[0]), memoryview(bytearray(1 << 20))
            assert reader.readinto(buffer)
            for process in descendants(server.pid):
                os.kill(process, signal.SIGKILL)
            with pytest.raises(UnreachableError):
                while reader.readinto(buffer):
                    pass


def test_a_source_travels_to_another_process_and_survives_a_fork(sshd: SshServer, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    found, path = source(sshd, tmp_path), os.fsencode(tmp_path)
    assert len(found.open_directory(path).entries) == 1
    assert len(pickle.loads(pickle.dumps(found)).open_directory(path).entries) == 1
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with found.open_directory(path) as directory:
                code = 0 if read(directory, directory.entries[0]) == b"x" else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert len(found.open_directory(path).entries) == 1


def descendants(process: int) -> list[int]:
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [found for child in map(int, children) for found in (child, *descendants(child))]
