"""OpenSSH's server on a loopback port, with its own keys."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from drctl.remote import ParamikoRemote, RemoteOptions
from tests.servers.processes import answers, free_port, require, running


@dataclass(frozen=True, slots=True)
class SshServer:
    """A running sshd. Everybody with `identity_file` may log in as `user`; `root` is a directory for
    files; `log` grows a line with every connection, login and file operation."""

    port: int
    user: str
    identity_file: Path
    known_hosts: Path
    host_key: Path
    root: Path
    log: Path
    pid: int
    address: str = "127.0.0.1"

    def remote(self, port: int | None = None, timeout_s: float = 10.0) -> ParamikoRemote:
        """A remote that may log in; `port` is that of a proxy before the server."""
        known_hosts = self.known_hosts
        if port is not None:
            known_hosts = self.known_hosts.with_name(f"known_hosts_{port}")
            known_hosts.write_text(self.known_hosts.read_text().replace(f":{self.port} ", f":{port} "))
        return ParamikoRemote(
            RemoteOptions(
                address=self.address,
                port=port or self.port,
                user=self.user,
                identity_file=str(self.identity_file),
                known_hosts=str(known_hosts),
                timeout_s=timeout_s,
            )
        )


@contextmanager
def ssh_server(directory: Path, extra_configuration: str = "") -> Iterator[SshServer]:
    """Start sshd in `directory`, logging in as the current user."""
    sshd = require("sshd", "openssh-server")
    keygen = require("ssh-keygen", "openssh-client")
    os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    for name in ("host_key", "identity"):
        subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", directory / name], check=True)
    shutil.copy(directory / "identity.pub", directory / "authorized_keys")
    port = free_port()
    kind, key = (directory / "host_key.pub").read_text().split()[:2]
    (directory / "known_hosts").write_text(f"[127.0.0.1]:{port} {kind} {key}\n")
    root = directory / "files"
    root.mkdir(mode=0o700)
    configuration = directory / "sshd_config"
    configuration.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {directory}/host_key\n"
        f"AuthorizedKeysFile {directory}/authorized_keys\nStrictModes no\nUsePAM no\n"
        f"PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n"
        f"PidFile {directory}/pid\nSubsystem sftp internal-sftp -l VERBOSE\nLogLevel VERBOSE\n"
        f"MaxStartups 100\n{extra_configuration}\n"
    )
    log = directory / "log"
    with running([sshd, "-D", "-e", "-f", str(configuration)], lambda: answers(port), log) as child:
        yield SshServer(
            port=port,
            user=pwd.getpwuid(os.getuid()).pw_name,
            identity_file=directory / "identity",
            known_hosts=directory / "known_hosts",
            host_key=directory / "host_key",
            root=root,
            log=log,
            pid=child.pid,
        )
