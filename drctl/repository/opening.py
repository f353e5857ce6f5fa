"""Making and opening repositories: from a storage and a key to an unlocked `Repository`.

Invariant: nothing is a repository before its `config` lies there, which is written last; whichever
key file opens, it is proven by the config it unseals.
"""

from __future__ import annotations

import os

import orjson

from drctl.domain.plan import Compression
from drctl.domain.secret import Secret
from drctl.errors import AbsentError, CorruptError, NoRepositoryError, RefusedError, UsageError, WrongKeyError
from drctl.ports import Clock, Storage
from drctl.repository.crypto import ScryptCost, Sealer, SealingKey
from drctl.repository.fields import mapping, number, text
from drctl.repository.ids import hash_of, is_id, parse_id
from drctl.repository.keys import MAX_KEY_FILE, KeyFile, decode_key_file, store_key
from drctl.repository.polynomial import random_irreducible
from drctl.repository.repo import Config, Repository

MAX_CONFIG = 64 * 2**10


def create_repository(
    storage: Storage,
    password: Secret,
    clock: Clock,
    *,
    compression: Compression = Compression.AUTO,
    version: int = 2,
    cost: ScryptCost = ScryptCost(),  # noqa: B008 - frozen
) -> Repository:
    """Make a new repository; RefusedError where one is already, UsageError for an empty key."""
    if not password.reveal():
        raise UsageError("the repository key is empty", hint="give a key file with at least one line")
    if _exists(storage):
        raise RefusedError(
            f"{storage.location} is already a repository", hint="use it as it is, or choose an empty place"
        )
    master, key_id = _left_by_killed_init(storage, password) or _save_new_master(
        storage, password, clock, cost
    )
    config = Config(version, os.urandom(32).hex(), random_irreducible())
    json = orjson.dumps(
        {"version": version, "id": config.id, "chunker_polynomial": f"{config.chunker_polynomial:x}"}
    )
    # the config goes last: a place without one is no repository, and init may be run again
    storage.save("config", [b"".join(Sealer(master).seal(json))])
    return Repository(storage, master, key_id, config, compression)


def open_repository(
    storage: Storage, password: Secret, *, compression: Compression = Compression.AUTO
) -> Repository:
    """Open with a password. NoRepositoryError, WrongKeyError, or CorruptError naming the file."""
    try:
        sealed_config = _load_small(storage, "config", MAX_CONFIG)
    except AbsentError as exc:
        raise NoRepositoryError(
            f"no repository at {storage.location}", hint="make one with: drctl repo init"
        ) from exc
    master, key_id = _open_any_key(storage, password)
    config = _decode_config(Sealer(master).open(sealed_config, "config"))
    return Repository(storage, master, key_id, config, compression)


def _exists(storage: Storage) -> bool:
    try:
        storage.stat("config")
    except AbsentError:
        return False
    return True


def _load_small(storage: Storage, key: str, limit: int) -> bytes:
    data = storage.load(key, 0, limit + 1)
    if len(data) > limit:
        raise CorruptError(f"{key}: larger than {limit} bytes")
    return data


def _open_any_key(storage: Storage, password: Secret) -> tuple[SealingKey, bytes]:
    damaged: CorruptError | None = None
    tried = 0
    for stored in storage.list("keys/"):
        name = stored.key.rsplit("/", 1)[-1]
        if not is_id(name):
            continue
        try:
            key = _load_key_file(storage, stored.key).open(password, stored.key)
        except CorruptError as exc:
            damaged = exc  # another key file may still open
            continue
        except AbsentError:
            continue  # removed since it was listed
        if key is not None:
            return key, bytes.fromhex(name)
        tried += 1
    if damaged:
        raise damaged
    if not tried:
        raise CorruptError(
            f"{storage.location}: keys/ holds no key file, so nothing can open the repository",
            hint="bring a key file back from a copy of the repository",
        )
    raise WrongKeyError(
        f"no key of the repository at {storage.location} opens with the key given",
        hint="check the plan's key: file, command, environment or credential",
    )


def _left_by_killed_init(storage: Storage, password: Secret) -> tuple[SealingKey, bytes] | None:
    """A key file that opens is used again: beside another one, either of them could be the one that
    is found first, and only one opens the config."""
    try:
        return _open_any_key(storage, password)
    except (AbsentError, CorruptError, WrongKeyError):
        return None


def _save_new_master(
    storage: Storage, password: Secret, clock: Clock, cost: ScryptCost
) -> tuple[SealingKey, bytes]:
    master = SealingKey.generate()
    return master, store_key(storage, master, password, clock, cost)


def _load_key_file(storage: Storage, key: str) -> KeyFile:
    data = _load_small(storage, key, MAX_KEY_FILE)
    if hash_of(data).hex() != key.rsplit("/", 1)[-1]:
        raise CorruptError(f"{key}: its bytes do not hash to its name")
    return decode_key_file(data, key)


def _decode_config(json: bytes) -> Config:
    try:
        raw = mapping(orjson.loads(json))
        polynomial = int(text(raw["chunker_polynomial"]), 16)
        config = Config(number(raw["version"]), parse_id(raw["id"], "config").hex(), polynomial)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as exc:
        raise CorruptError(f"config: malformed: {exc}") from exc
    if config.version not in (1, 2):
        raise RefusedError(
            f"config: repository version {config.version} is newer than this program knows",
            hint="use a newer drctl",
        )
    return config
