"""SSH against OpenSSH's own server: whom it trusts, how long it waits (safety lines 31, 40)."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from paramiko import SFTPFile

from drctl.errors import RefusedError, StorageError, UnreachableError, UsageError
from drctl.remote import ParamikoRemote, RemoteOptions
from tests.servers.processes import free_port
from tests.servers.ssh import SshServer, ssh_server
from tests.servers.tcp_proxy import Fault, tcp_proxy


@pytest.fixture
def options(sshd: SshServer) -> RemoteOptions:
    return RemoteOptions(
        address=sshd.address,
        port=sshd.port,
        user=sshd.user,
        identity_file=str(sshd.identity_file),
        known_hosts=str(sshd.known_hosts),
        timeout_s=10,
    )


def logins(sshd: SshServer) -> int:
    """How many clients sent a user name so far."""
    return sshd.log.read_text().count("Accepted publickey") + sshd.log.read_text().count("Failed ")


def other_key(directory: Path, kind: str = "ed25519") -> str:
    """A public key line (`type base64`) of nobody."""
    path = directory / f"other_{kind}"
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", path], check=True)
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


def test_a_known_host_lets_us_in(options: RemoteOptions, sshd: SshServer) -> None:
    remote = ParamikoRemote(options)
    (sshd.root / "hello").write_bytes(b"hi")
    with remote.sftp().open(f"{sshd.root}/hello") as file:
        assert file.read() == b"hi"
    assert remote.address == f"{sshd.user}@127.0.0.1:{sshd.port}"
    remote.close()


@pytest.mark.parametrize(
    "content", ["", "# nothing\n", "other.example ssh-ed25519 AAAA\n", "garbage\n\x00\xff\n"]
)
def test_an_unknown_host_gets_nothing_and_the_hint_names_the_step(
    options: RemoteOptions, sshd: SshServer, tmp_path: Path, content: str
) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(content, encoding="latin-1")
    before = logins(sshd)
    with pytest.raises(RefusedError) as caught:
        ParamikoRemote(replace(options, known_hosts=str(known))).sftp()
    assert f"ssh-keyscan -p {sshd.port} 127.0.0.1 >> {known}" in (caught.value.hint or "")
    assert "unknown" in caught.value.message
    assert logins(sshd) == before


def test_a_missing_known_hosts_file_knows_nobody(options: RemoteOptions, tmp_path: Path) -> None:
    with pytest.raises(RefusedError):
        ParamikoRemote(replace(options, known_hosts=str(tmp_path / "none"))).sftp()


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_a_changed_host_key_gets_nothing(
    options: RemoteOptions, sshd: SshServer, tmp_path: Path, kind: str
) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{sshd.port} {other_key(tmp_path, kind)}\n")
    before = logins(sshd)
    with pytest.raises(RefusedError) as caught:
        ParamikoRemote(replace(options, known_hosts=str(known))).sftp()
    assert "changed" in caught.value.message
    assert f"ssh-keygen -R '[127.0.0.1]:{sshd.port}' -f {known}" in (caught.value.hint or "")
    assert logins(sshd) == before


def test_a_key_known_for_another_port_is_not_known_here(
    options: RemoteOptions, sshd: SshServer, tmp_path: Path
) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(sshd.known_hosts.read_text().replace(f"[127.0.0.1]:{sshd.port}", "127.0.0.1"))
    with pytest.raises(RefusedError):
        ParamikoRemote(replace(options, known_hosts=str(known))).sftp()


def test_a_revoked_key_is_refused_even_if_it_is_listed_too(
    options: RemoteOptions, sshd: SshServer, tmp_path: Path
) -> None:
    known = tmp_path / "known_hosts"
    line = sshd.known_hosts.read_text()
    known.write_text(line + "@revoked * " + line.split(" ", 1)[1])
    before = logins(sshd)
    with pytest.raises(RefusedError, match="revoked"):
        ParamikoRemote(replace(options, known_hosts=str(known))).sftp()
    assert logins(sshd) == before


def test_hashed_entries_and_second_keys_of_one_type_are_known(
    options: RemoteOptions, sshd: SshServer, tmp_path: Path
) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(
        f"[127.0.0.1]:{sshd.port} {other_key(tmp_path)}\n"
        f"[127.0.0.1]:{sshd.port} {other_key(tmp_path, 'rsa')}\n" + sshd.known_hosts.read_text()
    )
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", known], check=True, capture_output=True)
    assert "127.0.0.1" not in known.read_text()
    remote = ParamikoRemote(replace(options, known_hosts=str(known)))
    remote.sftp().stat("/")
    remote.close()


def test_a_refused_login_says_so_and_is_no_outage(options: RemoteOptions, tmp_path: Path) -> None:
    other_key(tmp_path)
    with pytest.raises(StorageError) as caught:
        ParamikoRemote(replace(options, identity_file=str(tmp_path / "other_ed25519"))).sftp()
    assert "login refused" in caught.value.message
    assert "authorized_keys" in (caught.value.hint or "")


def test_an_identity_file_others_may_read_is_refused(
    options: RemoteOptions, sshd: SshServer, tmp_path: Path
) -> None:
    loose = tmp_path / "identity"
    loose.write_bytes(sshd.identity_file.read_bytes())
    loose.chmod(0o640)
    with pytest.raises(RefusedError, match="others may read"):
        ParamikoRemote(replace(options, identity_file=str(loose))).sftp()


def test_bad_identity_files_are_one_line_errors(options: RemoteOptions, tmp_path: Path) -> None:
    cases = {"missing": None, "no_key": b"hello\n", "empty": b""}
    for name, content in cases.items():
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
            path.chmod(0o600)
        with pytest.raises(UsageError, match=name):
            ParamikoRemote(replace(options, identity_file=str(path))).sftp()


def test_a_passphrase_needs_an_agent_and_an_agent_is_used(
    options: RemoteOptions, sshd: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = tmp_path / "locked"
    locked.write_bytes(sshd.identity_file.read_bytes())
    locked.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "pass phrase", "-f", locked], check=True)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with pytest.raises(UsageError, match="passphrase"):
        ParamikoRemote(replace(options, identity_file=str(locked))).sftp()
    socket = tmp_path / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
    try:
        for _ in range(100):
            if socket.exists():
                break
            time.sleep(0.05)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        subprocess.run(["ssh-add", "-q", sshd.identity_file], check=True)
        for identity in (str(locked), None):
            remote = ParamikoRemote(replace(options, identity_file=identity))
            remote.sftp().stat("/")
            remote.close()
    finally:
        agent.terminate()
        agent.wait()


def test_nobody_listening_is_unreachable(options: RemoteOptions, tmp_path: Path, sshd: SshServer) -> None:
    with pytest.raises(UnreachableError) as caught:
        sshd.remote(port=free_port()).sftp()
    assert "ssh -p" in (caught.value.hint or "")


def test_a_name_that_does_not_resolve_is_unreachable(
    options: RemoteOptions, sshd: SshServer, tmp_path: Path
) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(sshd.known_hosts.read_text().replace("127.0.0.1", "nowhere.invalid"))
    with pytest.raises(UnreachableError, match=r"nowhere\.invalid"):
        ParamikoRemote(replace(options, address="nowhere.invalid", known_hosts=str(known))).sftp()


@pytest.mark.parametrize("part", [0, 0.02, 0.5, 0.7, 0.8, 0.82, 0.83, 0.84, 0.86, 0.9, 0.99])
def test_a_peer_that_falls_silent_while_connecting_is_given_up_in_time(sshd: SshServer, part: float) -> None:
    with tcp_proxy(sshd.port) as healthy:
        sshd.remote(healthy.port).sftp()
        whole = healthy.bytes_down
    with tcp_proxy(sshd.port) as proxy:
        proxy.plan(Fault.BLACK_HOLE, after_bytes=int(whole * part), upwards=False)
        start = time.monotonic()
        with pytest.raises(UnreachableError):
            sshd.remote(proxy.port, timeout_s=0.7).sftp()
        assert proxy.happened
        assert time.monotonic() - start < 8


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[SshServer]:
    """A server of this test, which it may freeze."""
    with ssh_server(tmp_path) as server:
        yield server


def sessions_of(server: SshServer) -> list[int]:
    """The processes that serve connections."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    return [int(child) for child in children]


@pytest.mark.parametrize("act", ["reading", "writing"])
def test_a_frozen_server_is_given_up_in_time_and_used_again_when_it_is_back(
    own_server: SshServer, act: str
) -> None:
    remote = own_server.remote(timeout_s=2)
    file = remote.sftp().open(f"{own_server.root}/big", "wb")
    frozen = sessions_of(own_server)
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    start = time.monotonic()
    try:
        with pytest.raises((TimeoutError, OSError, EOFError)):
            if act == "reading":
                remote.sftp().stat("/")
            else:
                file.set_pipelined(True)
                for _ in range(64):
                    file.write(b"x" * (1 << 20))
        assert time.monotonic() - start < 12
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    remote.close()
    remote.sftp().stat("/")
    remote.close()


def test_each_thread_has_its_own_channel_also_beyond_what_one_connection_allows(
    options: RemoteOptions, sshd: SshServer
) -> None:
    remote = ParamikoRemote(options)
    barrier = threading.Barrier(14)

    def channel(_: int) -> int:
        mine = remote.sftp()
        barrier.wait(30)
        mine.stat("/")
        assert remote.sftp() is mine
        return id(mine)

    with ThreadPoolExecutor(14) as pool:
        assert len(set(pool.map(channel, range(14)))) == 14
    remote.close()


def test_a_forked_child_leaves_the_parents_connection_alone(options: RemoteOptions, sshd: SshServer) -> None:
    remote = ParamikoRemote(options)
    mine = remote.sftp()
    for _ in range(3):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                theirs = remote.sftp()
                theirs.stat("/")
                status = 0 if theirs is not mine else 2
                remote.close()
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        mine.stat("/")
        assert remote.sftp() is mine
    remote.close()


def test_a_file_a_child_inherited_and_drops_is_not_closed_for_the_parent(
    options: RemoteOptions, sshd: SshServer
) -> None:
    remote = ParamikoRemote(options)
    (sshd.root / "inherited").write_bytes(b"content")
    file: SFTPFile | None = remote.sftp().open(f"{sshd.root}/inherited")
    assert file is not None
    child = os.fork()
    if child == 0:
        try:
            remote.sftp().stat("/")
            file = None
            gc.collect()
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert file.read() == b"content"
    remote.close()


def test_a_pickled_copy_carries_no_connection(options: RemoteOptions) -> None:
    remote = ParamikoRemote(options)
    remote.sftp()
    copy: ParamikoRemote = pickle.loads(pickle.dumps(remote))
    assert copy.address == remote.address
    copy.sftp().stat("/")
    copy.close()
    remote.sftp().stat("/")
    remote.close()


def test_a_server_without_file_channels_says_so(tmp_path: Path) -> None:
    with (
        ssh_server(tmp_path, "ForceCommand /bin/false") as server,
        pytest.raises((StorageError, UnreachableError)) as caught,
    ):
        server.remote(timeout_s=3).sftp()
    assert server.address in caught.value.message
