"""The keys of a repository: who can open it, and taking that away.

Invariant: a new key is proven to open the repository before it counts, and at least one key file,
the one in use, stays.
"""

from __future__ import annotations

from dataclasses import dataclass

from drctl.domain.secret import Secret
from drctl.errors import AbsentError, CorruptError, RefusedError, UsageError, WrongKeyError
from drctl.ports import Clock
from drctl.repository.crypto import ScryptCost
from drctl.repository.keys import MAX_KEY_FILE, decode_key_file
from drctl.repository.repo import FileKind, Repository


@dataclass(frozen=True, slots=True)
class KeyRow:
    """What a key file says of itself; `problem` where it is damaged, and the rest is then empty."""

    id: bytes
    created: str
    username: str
    hostname: str
    in_use: bool
    problem: str | None = None


def list_keys(repository: Repository) -> list[KeyRow]:
    """All key files, oldest first; a damaged one is listed with its problem."""
    rows = []
    for stored in repository.files(FileKind.KEY):
        file = FileKind.KEY.key(stored.id)
        in_use = stored.id == repository.key_id
        try:
            key = decode_key_file(repository.storage.load(file, 0, MAX_KEY_FILE + 1), file)
        except AbsentError:
            continue  # removed meanwhile
        except CorruptError as exc:
            rows.append(KeyRow(stored.id, "", "", "", in_use, exc.message))
        else:
            rows.append(KeyRow(stored.id, key.created, key.username, key.hostname, in_use))
    return sorted(rows, key=lambda row: (row.created, row.id))


def add_key(repository: Repository, key: Secret, clock: Clock, cost: ScryptCost | None = None) -> bytes:
    """Let `key` open the repository too; the id of its file. UsageError for an empty key. A file that
    does not open when it is read back is removed again: WrongKeyError."""
    if not key.reveal():
        raise UsageError("the new key is empty", hint="give a key file with at least one line")
    identifier = repository.add_key(key, clock, cost) if cost else repository.add_key(key, clock)
    file = FileKind.KEY.key(identifier)
    stored = decode_key_file(repository.storage.load(file, 0, MAX_KEY_FILE + 1), file)
    if stored.open(key, file) is None:
        repository.remove(FileKind.KEY, identifier)
        raise WrongKeyError(f"{file}: does not open with the key it was made for", hint="try again")
    return identifier


def find_key(repository: Repository, prefix: str) -> KeyRow:
    """The one key whose id begins with `prefix`; UsageError for none or several."""
    matches = [row for row in list_keys(repository) if row.id.hex().startswith(prefix.lower())]
    if len(matches) != 1:
        raise UsageError(f"{len(matches)} keys begin with {prefix!r}", hint="see: drctl repo key list")
    return matches[0]


def remove_key(repository: Repository, identifier: bytes) -> None:
    """Take a key away. RefusedError for the one in use, and when that one's file is gone: then the
    other would be the last. Whoever copied the repository can still use the key on the copy."""
    names = {stored.id for stored in repository.files(FileKind.KEY)}
    if identifier != repository.key_id and repository.key_id not in names:
        raise RefusedError(
            "the key file that opened this repository was removed meanwhile: another may be the last",
            hint="open the repository with a key that stays, and try again",
        )
    repository.remove_key(identifier)
