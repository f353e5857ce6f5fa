"""Files that the command line makes for its user: plans and keys.

Invariant: they are durable, only their owner may read them, and nothing that exists is replaced: a key
that is written over is a repository that nobody opens again.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from drctl.domain.plan import RepositorySpec
from drctl.domain.secret import Secret
from drctl.errors import RefusedError, StorageError, UsageError
from drctl.storage.durable import make_directories, new_file, publish, sync_directory
from drctl.storage.keys import temporary_name

_KEY_BYTES = 32  # as many bits as the cipher's own key


def write_new(path: Path, text: str) -> None:
    """A new text file, 0600; RefusedError when something is there already."""
    temporary = str(path.parent / temporary_name())
    try:
        make_directories(str(path.parent))
        # whole or not there: half a key after a kill would stand in the way of the next run
        with new_file(temporary, [text.encode("utf-8")]):
            publish(temporary, str(path))
        sync_directory(str(path.parent))
    except FileExistsError as exc:
        raise RefusedError(f"{path} exists already", hint="it is never replaced; name another place") from exc
    except OSError as exc:
        raise StorageError(f"cannot write {path}: {(exc.strerror or 'error').lower()}") from exc


def write_new_key(path: Path) -> Secret:
    """A new random 256-bit key in a new file: one line of hexadecimal digits, easy to print and type."""
    key = secrets.token_hex(_KEY_BYTES)
    write_new(path, key + "\n")
    return Secret(key)


def generate_key_of(spec: RepositorySpec) -> Secret:
    """A new key at the place where the plan looks for the repository's key."""
    if spec.key.file is None:
        raise UsageError(
            f"repository {spec.name}: its key is not a file", hint="make the key where the plan looks for it"
        )
    return write_new_key(Path(spec.key.file).absolute())
