"""A host reached by SSH, as `ports.Remote`.

Invariant: nothing is sent to a host, not even a user name, before its key was found in the known
hosts; and no call waits for a silent peer longer than the options' `timeout_s` says.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from drctl.errors import RefusedError, StorageError, UnreachableError, UsageError

if TYPE_CHECKING:
    from paramiko import Channel, PKey, SFTPClient, Transport

_REVOKED = "@revoked"
SYSTEM_KNOWN_HOSTS = ("~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts")


@dataclass(frozen=True, slots=True)
class RemoteOptions:
    """How to reach a host. Without `user` it is the local user; without `identity_file` the SSH
    agent and the usual key files are tried; without `known_hosts` the user's and the system's."""

    address: str
    port: int = 22
    user: str | None = None
    identity_file: str | None = None
    known_hosts: str | None = None
    timeout_s: float = 30.0
    """The longest silence that is waited for: connecting, logging in, and every answer."""
    keepalive_s: int = 15


class _Connections:
    """What belongs to one process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.of_thread = threading.local()
        self.transports: list[Transport] = []

    def disown(self) -> None:
        """Called in another process, on a forked copy: it must never send. Closing it, or letting
        it be collected while it thinks it is open, would write into the owner's connection."""
        for transport in self.transports:
            transport.active = False  # type: ignore[attr-defined]


class ParamikoRemote:
    """`ports.Remote` over paramiko: one connection, one file channel per thread. Where the server
    allows no more channels on a connection (OpenSSH: 10), another connection is opened."""

    def __init__(self, options: RemoteOptions) -> None:
        self._options = options
        self._by_process: dict[int, _Connections] = {}

    @property
    def address(self) -> str:
        """`user@host:port`."""
        host = self._options.address
        return f"{self._user}@{f'[{host}]' if ':' in host else host}:{self._options.port}"

    def sftp(self) -> SFTPClient:
        """See `ports.Remote.sftp`. StorageError when the login is refused."""
        of_thread = self._here().of_thread
        client: SFTPClient | None = getattr(of_thread, "sftp", None)
        if client is None or not _is_open(client):
            client = of_thread.sftp = self._open_sftp()
        return client

    def close(self) -> None:
        """End all connections of this process; the next use reconnects."""
        here = self._here()
        with here.lock:
            for transport in here.transports:
                transport.close()
            here.transports.clear()

    def __reduce__(self) -> tuple[object, ...]:
        return (ParamikoRemote, (self._options,))

    @property
    def _user(self) -> str:
        if self._options.user is not None:
            return self._options.user
        import pwd  # noqa: PLC0415

        return pwd.getpwuid(os.geteuid()).pw_name

    def _here(self) -> _Connections:
        pid = os.getpid()
        if pid not in self._by_process:
            for foreign in self._by_process.values():
                foreign.disown()
            # one step: all threads of a new process get the same, without a lock that a fork could
            # have copied in its locked state
            self._by_process.setdefault(pid, _Connections())
        return self._by_process[pid]

    def _open_sftp(self) -> SFTPClient:
        from paramiko import ChannelException  # noqa: PLC0415

        here = self._here()
        with here.lock, self._translated("open a file channel"):
            here.transports[:] = [transport for transport in here.transports if transport.is_active()]
            for transport in here.transports:
                with suppress(ChannelException):  # this connection has all the channels it may have
                    return self._sftp_on(transport)
            transport = self._connect()
            here.transports.append(transport)
            try:
                return self._sftp_on(transport)
            except ChannelException as exc:
                raise StorageError(
                    f"{self.address}: the server opens no file channel: {exc}",
                    hint="it needs `Subsystem sftp internal-sftp` in its sshd_config",
                ) from exc

    def _sftp_on(self, transport: Transport) -> SFTPClient:
        from paramiko import SFTPClient  # noqa: PLC0415

        limit_s = self._options.timeout_s
        # paramiko waits without a bound for the subsystem's answer; the bound is ours
        with _closed_after(limit_s, transport):
            channel: Channel = transport.open_session(timeout=limit_s)
            channel.settimeout(limit_s)
            channel.invoke_subsystem("sftp")
            return SFTPClient(channel)

    def _connect(self) -> Transport:
        from paramiko import Transport  # noqa: PLC0415

        options = self._options
        known = self._known_keys()
        with self._translated("connect"):
            transport = Transport(self._open_socket())
            transport.banner_timeout = transport.auth_timeout = options.timeout_s
            transport.channel_timeout = options.timeout_s
            try:
                with _closed_after(options.timeout_s * 2, transport):
                    self._agree_on_host_key(transport, known)
                    self._log_in(transport)
            except BaseException:
                transport.close()
                raise
        transport.set_keepalive(options.keepalive_s)
        return transport

    def _open_socket(self) -> socket.socket:
        options = self._options
        connection = socket.create_connection((options.address, options.port), options.timeout_s)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # a peer that takes nothing any more would block a sender for a quarter of an hour
        milliseconds = int(options.timeout_s * 1000)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        return connection

    # --- host keys ---

    def _known_hosts_files(self) -> Sequence[str]:
        if self._options.known_hosts is not None:
            return (os.path.expanduser(self._options.known_hosts),)
        return tuple(os.path.expanduser(path) for path in SYSTEM_KNOWN_HOSTS)

    def _known_keys(self) -> dict[str, set[str]]:
        """The host's known public keys (base64) by type, `@revoked` ones under that word;
        RefusedError without connecting if there are none."""
        name, known = self._name_in_known_hosts, dict[str, set[str]]()
        for path in self._known_hosts_files():
            try:
                with open(path, encoding="utf-8", errors="replace") as lines:
                    for line in lines:
                        for kind, key in _keys_in(line.strip(), name):
                            known.setdefault(kind, set()).add(key)
            except FileNotFoundError:
                continue
            except OSError as exc:
                raise RefusedError(f"the known hosts in {path} cannot be read: {exc.strerror}") from exc
        if not known.keys() - {_REVOKED}:
            raise RefusedError(
                f"ssh {self.address}: the host's key is unknown: {name} is not in "
                f"{' or '.join(self._known_hosts_files())}; nothing was sent",
                hint=self._how_to_learn_the_key(),
            )
        return known

    def _agree_on_host_key(self, transport: Transport, known: dict[str, set[str]]) -> None:
        security = transport.get_security_options()
        # ask only for key types we can check: a server has several keys, and shows one
        security.key_types = [kind for kind in security.key_types if _plain_type(kind) in known]
        from paramiko.ssh_exception import IncompatiblePeer  # noqa: PLC0415

        try:
            transport.start_client(timeout=self._options.timeout_s)
        except IncompatiblePeer as exc:
            if "host key" not in str(exc):
                raise
            raise self._changed_key("shows no key of a known type") from exc
        shown = transport.get_remote_server_key()
        if shown.get_base64() not in known.get(shown.get_name(), ()):
            raise self._changed_key(f"shows {shown.get_name()} {shown.fingerprint}")
        if shown.get_base64() in known.get(_REVOKED, ()):
            raise RefusedError(f"ssh {self.address}: the host's key {shown.fingerprint} is marked @revoked")

    def _changed_key(self, what: str) -> RefusedError:
        name, path = self._name_in_known_hosts, self._known_hosts_files()[0]
        return RefusedError(
            f"ssh {self.address}: the host's key has changed: it {what}, which is not in the known hosts; "
            "nothing was sent",
            hint="somebody may be in between. If the change is known to be right: "
            f"ssh-keygen -R '{name}' -f {path}; then {self._how_to_learn_the_key()}",
        )

    @property
    def _name_in_known_hosts(self) -> str:
        host, port = self._options.address, self._options.port
        return host if port == 22 else f"[{host}]:{port}"

    def _how_to_learn_the_key(self) -> str:
        options = self._options
        return (
            f"ssh-keyscan -p {options.port} {options.address} >> {self._known_hosts_files()[0]}, and compare "
            f"its fingerprint (ssh-keygen -lf) with the one on the host's own console"
        )

    # --- logging in ---

    def _log_in(self, transport: Transport) -> None:
        from paramiko import AuthenticationException, BadAuthenticationType  # noqa: PLC0415

        refused: AuthenticationException | None = None
        tried = 0
        for key in self._identities():
            tried += 1
            try:
                transport.auth_publickey(self._user, key)
            except BadAuthenticationType as exc:
                refused = exc
                break
            except AuthenticationException as exc:
                refused = exc
                continue
            if transport.is_authenticated():
                return
        what = self._options.identity_file or f"{tried} keys of the agent and of ~/.ssh"
        raise StorageError(
            f"ssh {self.address}: login refused with {what}"
            if tried
            else f"ssh {self.address}: no key to log in with",
            hint=f"put the public key into ~{self._user}/.ssh/authorized_keys there; try: "
            f"ssh -p {self._options.port} {self._user}@{self._options.address}",
        ) from refused

    def _identities(self) -> Iterator[PKey]:
        from paramiko import Agent  # noqa: PLC0415

        path = self._options.identity_file
        if path is not None:
            try:
                yield _load_identity(os.path.expanduser(path))
                return
            except FileNotFoundError as exc:
                raise UsageError(f"there is no identity file {path}") from exc
            except _NeedsPassphrase as exc:
                if not os.environ.get("SSH_AUTH_SOCK"):
                    raise UsageError(
                        f"the identity file {path} has a passphrase",
                        hint=f"load it into an agent: ssh-add {path}",
                    ) from exc
        agent = Agent()
        try:
            yield from agent.get_keys()
        finally:
            agent.close()
        if path is None:
            for name in ("id_ed25519", "id_ecdsa", "id_rsa"):
                with suppress(FileNotFoundError, _NeedsPassphrase):
                    yield _load_identity(os.path.expanduser(f"~/.ssh/{name}"))

    @contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        from paramiko import SSHException  # noqa: PLC0415

        try:
            yield
        except (OSError, EOFError, SSHException) as exc:
            reason = str(exc) or type(exc).__name__
            raise UnreachableError(
                f"ssh {self.address}: cannot {doing}: {reason}",
                hint=f"is sshd up? try: ssh -p {self._options.port} {self._user}@{self._options.address}",
            ) from exc


def _is_open(client: SFTPClient) -> bool:
    channel = client.get_channel()
    return channel is not None and not channel.closed and channel.get_transport().is_active()


def _keys_in(line: str, name: str) -> Iterator[tuple[str, str]]:
    """Type and base64 key of a known_hosts line that names the host (sshd(8), SSH_KNOWN_HOSTS)."""
    from paramiko import SSHException  # noqa: PLC0415
    from paramiko.hostkeys import HostKeyEntry, HostKeys  # noqa: PLC0415

    marker, _, rest = line.partition(" ") if line.startswith("@") else ("", "", line)
    if not rest or rest.startswith("#") or marker not in ("", _REVOKED):
        return
    with suppress(SSHException):  # a broken line is no known key
        entry = HostKeyEntry.from_line(rest.strip())
        if entry is None or entry.key is None:
            return
        for known in entry.hostnames or ():
            if known in (name, "*") or (known.startswith("|1|") and HostKeys.hash_host(name, known) == known):
                yield marker or entry.key.get_name(), entry.key.get_base64()


def _plain_type(algorithm: str) -> str:
    return "ssh-rsa" if algorithm.startswith("rsa-sha2-") else algorithm


class _NeedsPassphrase(Exception):
    """The private key is encrypted."""


def _load_identity(path: str) -> PKey:
    from paramiko import PKey  # noqa: PLC0415
    from paramiko.pkey import UnknownKeyType  # noqa: PLC0415

    try:
        if os.stat(path).st_mode & 0o077:
            raise RefusedError(f"others may read the identity file {path}", hint=f"chmod 600 {path}")
        return PKey.from_path(path)
    except FileNotFoundError:
        raise
    except TypeError as exc:  # cryptography's answer to a missing passphrase
        raise _NeedsPassphrase from exc
    except (OSError, UnknownKeyType, ValueError) as exc:
        raise UsageError(f"{path} is no private key", hint="ssh-keygen -t ed25519 makes one") from exc


@contextmanager
def _closed_after(seconds: float, transport: Transport) -> Iterator[None]:
    timer = threading.Timer(seconds, transport.close)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
