"""Where secrets come from: a file, a command, the environment, a systemd credential.

Invariant: a secret is read at the moment it is needed, never written anywhere, and never part of a
message; a file that others may read is refused.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Mapping

from drctl.domain.plan import SecretReference
from drctl.domain.secret import Secret
from drctl.errors import RefusedError, UsageError

_MAX_LENGTH = 64 * 2**10
_COMMAND_TIMEOUT_S = 60


def read_secret(reference: SecretReference, environment: Mapping[str, str], what: str) -> Secret:
    """The secret behind a reference, without its last line end. `what` names it in errors: UsageError
    when it is not there or empty, RefusedError for a file that group or others may read."""
    if reference.file is not None:
        text = _of_file(reference.file, what)
    elif reference.command is not None:
        text = _of_command(reference.command, environment, what)
    elif reference.credential is not None:
        text = _of_credential(reference.credential, environment, what)
    else:
        text = environment.get(reference.environment or "", "")
        if not text:
            raise UsageError(f"{what}: the environment variable {reference.environment} is not set")
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise UsageError(f"{what}: the secret is empty")
    return Secret(text)


def _of_file(path: str, what: str) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return _text(_read_private(descriptor, path, what), what)
        finally:
            os.close(descriptor)
    except OSError as exc:
        raise UsageError(
            f"{what}: {path}: {exc.strerror}", hint="the plan names this file as the place of a secret"
        ) from exc


def _read_private(descriptor: int, path: str, what: str) -> bytes:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{what}: {path} is not a regular file")
    if status.st_mode & 0o077:
        raise RefusedError(
            f"{what}: {path} may be read by others (mode {stat.S_IMODE(status.st_mode):04o})",
            hint=f"chmod 0600 {path}",
        )
    return os.read(descriptor, _MAX_LENGTH + 1)


def _of_credential(name: str, environment: Mapping[str, str], what: str) -> str:
    directory = environment.get("CREDENTIALS_DIRECTORY")
    if not directory:
        raise UsageError(
            f"{what}: no systemd credentials here ($CREDENTIALS_DIRECTORY is not set)",
            hint=f"run it as a unit with LoadCredential={name}:...",
        )
    if "/" in name:
        raise UsageError(f"{what}: {name!r} is not the name of a credential")
    return _of_file(os.path.join(directory, name), what)


def _of_command(command: tuple[str, ...], environment: Mapping[str, str], what: str) -> str:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_COMMAND_TIMEOUT_S,
            env=dict(environment),
            check=False,
        )
    except OSError as exc:
        raise UsageError(f"{what}: cannot run {command[0]!r}: {exc.strerror}") from exc
    except subprocess.TimeoutExpired as exc:
        raise UsageError(f"{what}: {command[0]!r} gave no secret within {_COMMAND_TIMEOUT_S} s") from exc
    if done.returncode != 0:
        raise UsageError(f"{what}: {command[0]!r} ended with exit code {done.returncode}")
    return _text(done.stdout, what)


def _text(data: bytes, what: str) -> str:
    if len(data) > _MAX_LENGTH:
        raise UsageError(f"{what}: the secret is longer than {_MAX_LENGTH} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        # not chained: that error shows the bytes, and they are the secret
        raise UsageError(f"{what}: the secret is not UTF-8 text") from None
