"""What a network and an SFTP server may do to us (safety lines 1, 3, 5, 6, 7, 31)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from drctl.clock import SystemClock
from drctl.errors import AlreadyExistsError, RefusedError, StorageError, UnreachableError
from drctl.storage.sftp import SftpOptions, SftpStorage
from drctl.storage.wrappers import Retrying
from tests.servers.processes import require
from tests.servers.ssh import SshServer, ssh_server
from tests.servers.tcp_proxy import Fault, TcpProxy, tcp_proxy

CONTENT = os.urandom(3 << 20)


@pytest.fixture
def proxy(sshd: SshServer) -> Iterator[TcpProxy]:
    with tcp_proxy(sshd.port) as started:
        yield started


@pytest.fixture
def storage(sshd: SshServer, proxy: TcpProxy, tmp_path: Path) -> Iterator[SftpStorage]:
    """Connected through the proxy, with one file in it."""
    storage = SftpStorage(SftpOptions(str(tmp_path / "repo")), sshd.remote(proxy.port, timeout_s=2))
    storage.save("config", [CONTENT])
    yield storage
    storage.close()


def retrying(storage: SftpStorage) -> Retrying:
    return Retrying(storage, SystemClock(), timedelta(seconds=20))


@pytest.mark.parametrize("fault", Fault, ids=lambda fault: fault.name)
def test_a_connection_lost_in_mid_upload_leaves_no_file(
    storage: SftpStorage, proxy: TcpProxy, fault: Fault
) -> None:
    proxy.plan(fault, after_bytes=1 << 20)
    start = time.monotonic()
    with pytest.raises(UnreachableError):
        storage.save("data/aa/aaaa", [CONTENT])
    assert proxy.happened
    assert time.monotonic() - start < 10
    proxy.heal()
    assert [file.key for file in storage.list("")] == ["config"]
    storage.save("data/aa/aaaa", [CONTENT])
    assert storage.load("data/aa/aaaa") == CONTENT


@pytest.mark.parametrize("fault", Fault, ids=lambda fault: fault.name)
def test_a_connection_lost_in_mid_download_is_never_a_short_result(
    storage: SftpStorage, proxy: TcpProxy, fault: Fault
) -> None:
    proxy.plan(fault, after_bytes=1 << 20, upwards=False)
    with pytest.raises(UnreachableError):
        storage.load("config")
    assert proxy.happened
    if fault is not Fault.BLACK_HOLE:
        proxy.plan(fault, after_bytes=1 << 20, upwards=False)
        assert retrying(storage).load("config") == CONTENT
        assert proxy.happened


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.CLOSE], ids=lambda fault: fault.name)
def test_a_listing_that_was_cut_short_is_never_a_short_listing(
    storage: SftpStorage, proxy: TcpProxy, fault: Fault
) -> None:
    for n in range(40):
        storage.save(f"snapshots/{n:064x}", [b"x"])
    proxy.plan(fault, after_bytes=3000, upwards=False)
    with pytest.raises(UnreachableError):
        list(storage.list("snapshots/"))
    assert proxy.happened
    proxy.plan(fault, after_bytes=6000, upwards=False)
    assert len({file.key for file in retrying(storage).list("snapshots/")}) == 40


def test_uploads_cut_at_many_points_are_retried_to_one_effect(storage: SftpStorage, proxy: TcpProxy) -> None:
    size, happened = 200_000, 0
    storage.save("index/00", [CONTENT[:size]])
    for n, after_bytes in enumerate((0, 300, 100_000, 190_000, 199_900, 200_300, 200_600, 200_900, 201_200)):
        proxy.plan(Fault.RESET, after_bytes=after_bytes)
        retrying(storage).save(f"index/{n:04x}", [CONTENT[:size]])
        happened += proxy.happened
        proxy.heal()
        assert retrying(storage).load(f"index/{n:04x}") == CONTENT[:size]
    assert happened >= 6


def test_answers_cut_at_many_points_are_retried_to_one_effect(storage: SftpStorage, proxy: TcpProxy) -> None:
    happened = 0
    for n, after_bytes in enumerate(range(0, 1600, 200)):
        proxy.plan(Fault.RESET, after_bytes=after_bytes, upwards=False)
        retrying(storage).save(f"index/{n:04x}", [b"abc"])
        happened += proxy.happened
        proxy.heal()
        # the reset may come with the very last answer, when the save is over
        assert retrying(storage).load(f"index/{n:04x}") == b"abc"
    assert happened >= 4
    assert len(list(retrying(storage).list("index/"))) == 8


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_there_fails_the_save_and_leaves_nothing(sshd: SshServer, small_disk: Path) -> None:
    storage = SftpStorage(SftpOptions(str(small_disk)), sshd.remote())
    storage.save("config", [b"x" * 1000])
    with pytest.raises(StorageError) as caught:
        storage.save("data/aa/aaaa", [CONTENT])
    assert "full" in (caught.value.hint or "")
    assert [file.key for file in storage.list("")] == ["config"]
    assert list((small_disk / "data" / "aa").iterdir()) == []
    storage.save("data/aa/bbbb", [b"y" * 100_000])
    storage.close()


def test_a_file_that_lost_its_rights_is_refused_by_name(sshd: SshServer, tmp_path: Path) -> None:
    storage = SftpStorage(SftpOptions(str(tmp_path)), sshd.remote())
    storage.save("keys/aa", [b"x"])
    os.symlink("/etc/passwd", tmp_path / "keys" / "bb")
    with pytest.raises(StorageError, match="not a regular file"):
        storage.stat("keys/bb")
    assert [file.key for file in storage.list("")] == ["keys/aa"]
    storage.close()


def test_a_base_that_is_gone_is_an_error_and_not_an_empty_storage(sshd: SshServer, tmp_path: Path) -> None:
    storage = SftpStorage(SftpOptions(str(tmp_path / "not" / "mounted")), sshd.remote())
    with pytest.raises(StorageError):
        list(storage.list(""))
    storage.close()


def test_files_are_private_and_of_restics_layout(sshd: SshServer, tmp_path: Path) -> None:
    storage = SftpStorage(SftpOptions(str(tmp_path / "deep" / "repo")), sshd.remote())
    storage.save("data/aa/aabb", [b"x"])
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "deep").rglob("*")}
    assert modes == {"repo": 0o700, "data": 0o700, "aa": 0o700, "aabb": 0o600}
    assert (tmp_path / "deep").stat().st_mode & 0o777 == 0o700
    storage.close()


def test_a_changed_host_key_is_refused_at_once_and_never_retried(
    sshd: SshServer, proxy: TcpProxy, tmp_path: Path
) -> None:
    remote = sshd.remote(proxy.port)
    proxied = sshd.known_hosts.with_name(f"known_hosts_{proxy.port}")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    key = " ".join((tmp_path / "other.pub").read_text().split()[:2])
    proxied.write_text(f"[127.0.0.1]:{proxy.port} {key}\n")
    with pytest.raises(RefusedError):
        retrying(SftpStorage(SftpOptions("/tmp/x"), remote)).load("config")
    assert proxy.connections == 1


# --- what the server is told to do, seen by strace on a server of our own -----------------------


def descendants(pid: str) -> list[str]:
    """All processes below one."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [found for child in children for found in (child, *descendants(child))]


@contextmanager
def traced(server: SshServer, output: Path, *options: str) -> Iterator[None]:
    """strace on the open sessions of a server."""
    strace = require("strace", "strace")
    sessions = descendants(str(server.pid))
    targets = [argument for pid in sessions for argument in ("-p", pid)]
    child = subprocess.Popen(
        [strace, "-f", "-y", "-o", output, *options, *targets], stderr=subprocess.PIPE, start_new_session=True
    )
    assert child.stderr is not None
    for _ in sessions:
        assert b"attached" in child.stderr.readline()
    try:
        yield
    finally:
        child.send_signal(signal.SIGINT)
        child.wait(10)
        child.stderr.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[SshServer, SftpStorage]]:
    """A server that may be traced, with one connection open."""
    (tmp_path / "server").mkdir()
    with ssh_server(tmp_path / "server") as server:
        storage = SftpStorage(SftpOptions(str(server.root / "repo")), server.remote())
        storage.save("config", [b"x"])
        yield server, storage
        storage.close()


def calls(trace: Path, pattern: str) -> list[str]:
    """The traced calls in order, shortened to what matters."""
    found = (re.search(pattern, line) for line in trace.read_text().splitlines())
    return [match[0] for match in found if match is not None]


def test_the_server_syncs_the_file_before_its_name_and_the_directory_after(
    own: tuple[SshServer, SftpStorage], tmp_path: Path
) -> None:
    server, storage = own
    trace = tmp_path / "trace"
    with traced(server, trace, "-e", "trace=fsync,link,rename,mkdir"):
        storage.save("data/aa/aabb", [b"x" * 100_000])
    seen = calls(trace, r'(fsync\(\d+<[^>]*|link\("[^"]*", "[^"]*|mkdir\("[^"]*)')
    root = str(server.root)
    steps = [
        re.sub(r"\d+<", "", re.sub(r"\.drctl-\w+\.tmp", "TEMP", step)).replace(root, "") for step in seen
    ]
    assert sorted(steps[2:4]) == ["fsync(/repo", "fsync(/repo/data"]
    assert steps[:2] + steps[4:] == [
        'mkdir("/repo/data',
        'mkdir("/repo/data/aa',
        "fsync(/repo/data/aa/TEMP",
        'link("/repo/data/aa/TEMP", "/repo/data/aa/aabb',
        "fsync(/repo/data/aa",
    ]


def test_a_failing_fsync_there_fails_the_save_and_leaves_nothing(
    own: tuple[SshServer, SftpStorage], tmp_path: Path
) -> None:
    server, storage = own
    storage.save("index/00", [b"x"])
    for nth in (1, 2):  # of the file; of the directory
        trace = tmp_path / f"trace{nth}"
        with traced(server, trace, "-e", "trace=fsync", "-e", f"inject=fsync:error=EIO:when={nth}"):
            with pytest.raises(StorageError):
                storage.save("index/aa", [b"x" * 1000])
            assert [file.key for file in storage.list("index/")] == ["index/00"]
        assert "EIO" in trace.read_text()
        assert os.listdir(server.root / "repo" / "index") == ["00"]
    storage.save("index/aa", [b"y"])
    assert storage.load("index/aa") == b"y"


def test_a_write_error_in_the_last_packets_is_not_lost(
    own: tuple[SshServer, SftpStorage], tmp_path: Path
) -> None:
    server, storage = own
    storage.save("index/00", [b"x"])
    # sshd seeks before each write: the last of four packets fails, the file keeps its length 3 of 4
    failing = ("-e", "trace=lseek", "-e", "inject=lseek:error=ENOSPC:when=4")
    with traced(server, tmp_path / "trace", *failing), pytest.raises(StorageError):
        storage.save("index/aa", [b"x" * 32_768 * 4])
    assert "ENOSPC" in (tmp_path / "trace").read_text()
    assert [file.key for file in storage.list("index/")] == ["index/00"]


def test_a_taken_name_is_refused_by_the_server_itself(own: tuple[SshServer, SftpStorage]) -> None:
    server, storage = own
    assert storage.refuses_overwrite() is True
    sftp = server.remote().sftp()
    for name in ("a", "b"):
        with sftp.open(f"{server.root}/{name}", "w") as file:
            file.write(name.encode())
    with pytest.raises(OSError, match="Failure"):
        sftp.rename(f"{server.root}/a", f"{server.root}/b")
    assert (server.root / "b").read_bytes() == b"b"
    with pytest.raises(AlreadyExistsError):
        storage.save("config", [b"y"])
    assert not list((server.root / "repo").glob(".drctl*"))
