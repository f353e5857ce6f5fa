"""Key files: the master key, sealed under a password; several may open one repository.

Format: JSON with scrypt parameters, salt and the sealed master key, base64 (restic doc/design.rst).
Invariant: a password or key never appears in a message; a key file is bounded before it costs time.
"""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from datetime import datetime

import orjson

from drctl.domain.secret import Secret
from drctl.errors import CorruptError
from drctl.repository.crypto import ScryptCost, Sealer, SealingKey, derive_key
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
        sealer = Sealer(derive_key(password.reveal().encode(), self.salt, self.cost))
        try:
            plain = sealer.open(self.sealed, where)
        except CorruptError:
            return None
        try:
            return SealingKey.from_json(orjson.loads(plain), where)
        except orjson.JSONDecodeError as exc:
            raise CorruptError(f"{where}: the master key in it is malformed") from exc


def decode_key_file(data: bytes, where: str) -> KeyFile:
    """CorruptError naming `where` when malformed or absurdly costly."""
    try:
        raw = orjson.loads(data)
        if raw["kdf"] != "scrypt":
            raise CorruptError(f"{where}: unknown key derivation {str(raw['kdf'])[:40]!r}")
        cost = ScryptCost(int(raw["N"]), int(raw["r"]), int(raw["p"]))
        key_file = KeyFile(
            created=str(raw.get("created", "")),
            username=str(raw.get("username", "")),
            hostname=str(raw.get("hostname", "")),
            cost=cost,
            salt=base64.b64decode(raw["salt"], validate=True),
            sealed=base64.b64decode(raw["data"], validate=True),
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as exc:
        raise CorruptError(f"{where}: malformed key file: {exc}") from exc
    cost.check(where)
    return key_file


def encode_key_file(
    master: SealingKey, password: Secret, cost: ScryptCost, created: datetime, username: str, hostname: str
) -> bytes:
    """A new key file's JSON, sealing `master` under `password` with a fresh salt."""
    salt = os.urandom(_SALT_LENGTH)
    sealer = Sealer(derive_key(password.reveal().encode(), salt, cost))
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
