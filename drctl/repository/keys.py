"""Key files: the master key, sealed under a password; several may open one repository.

Format: JSON with scrypt parameters, salt and the sealed master key, base64 (restic doc/design.rst).
Invariant: a password or key never appears in a message; a key file is bounded before it costs time.
"""

from __future__ import annotations

import base64
import getpass
import os
import socket
from dataclasses import dataclass
from datetime import datetime

import orjson

from drctl.domain.secret import Secret
from drctl.errors import CorruptError, UsageError
from drctl.ports import Clock, Storage
from drctl.repository.crypto import OVERHEAD, ScryptCost, Sealer, SealingKey, derive_key
from drctl.repository.fields import UINT32, brief, mapping, number, optional_text, text
from drctl.repository.ids import hash_of
from drctl.repository.snapshot import time_text

MAX_KEY_FILE = 64 * 2**10
_SALT_LENGTH = 64


@dataclass(frozen=True, slots=True)
class KeyFile:
    """One parsed key file."""

    created: str
    username: str
    hostname: str
    cost: ScryptCost
    salt: bytes
    sealed: bytes

    def open(self, password: Secret, where: str) -> SealingKey | None:
        """The master key; None when the password is not this file's."""
        sealer = Sealer(derive_key(_password_bytes(password), self.salt, self.cost))
        try:
            plain = sealer.open(self.sealed, where)
        except CorruptError:
            return None
        try:
            fields = orjson.loads(plain)
        except orjson.JSONDecodeError:
            fields = None  # not raised from here: the decoder's error carries the plaintext
        return SealingKey.from_json(fields, where)


def _password_bytes(password: Secret) -> bytes:
    """The very bytes a file or the environment gave, UTF-8 or not."""
    try:
        return password.reveal().encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        pass
    # outside the handler: the codec's error carries the password
    raise UsageError("the repository key holds half a surrogate pair", hint="give it as UTF-8")


def decode_key_file(data: bytes, where: str) -> KeyFile:
    """CorruptError naming `where` when malformed or absurdly costly."""
    try:
        raw = mapping(orjson.loads(data))
        if raw["kdf"] != "scrypt":
            raise CorruptError(f"{where}: unknown key derivation {brief(raw['kdf'])}")
        cost = ScryptCost(*(number(raw[name], UINT32) for name in ("N", "r", "p")))
        key_file = KeyFile(
            created=optional_text(raw.get("created")),
            username=optional_text(raw.get("username")),
            hostname=optional_text(raw.get("hostname")),
            cost=cost,
            salt=base64.b64decode(text(raw["salt"]), validate=True),
            sealed=base64.b64decode(text(raw["data"]), validate=True),
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as exc:
        raise CorruptError(f"{where}: malformed key file: {exc}") from exc
    cost.check(where)
    if len(key_file.sealed) <= OVERHEAD:
        raise CorruptError(f"{where}: the master key in it is cut short")
    return key_file


def encode_key_file(
    master: SealingKey, password: Secret, cost: ScryptCost, created: datetime, username: str, hostname: str
) -> bytes:
    """A new key file's JSON, sealing `master` under `password` with a fresh salt."""
    salt = os.urandom(_SALT_LENGTH)
    sealer = Sealer(derive_key(_password_bytes(password), salt, cost))
    return orjson.dumps(
        {
            "created": time_text(created),
            "username": username,
            "hostname": hostname,
            "kdf": "scrypt",
            "N": cost.n,
            "r": cost.r,
            "p": cost.p,
            "salt": base64.b64encode(salt).decode(),
            "data": base64.b64encode(b"".join(sealer.seal(orjson.dumps(master.to_json())))).decode(),
        }
    )


def store_key(
    storage: Storage, master: SealingKey, password: Secret, clock: Clock, cost: ScryptCost
) -> bytes:
    """Store a new key file; returns its id."""
    data = encode_key_file(master, password, cost, clock.now(), username(), socket.gethostname())
    identifier = hash_of(data)
    storage.save(f"keys/{identifier.hex()}", [data])
    return identifier


def username() -> str:
    """Who runs this, for records; the number when it has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
