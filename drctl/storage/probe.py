"""Proving by trying that a storage keeps two writers of one key apart.

Invariant: the answer comes from what the storage did, never from what its kind usually does.
"""

from __future__ import annotations

import secrets

from drctl.errors import AlreadyExistsError
from drctl.ports import Storage
from drctl.storage.keys import PROBE_PREFIX


def keeps_writers_apart(storage: Storage) -> bool:
    """Whether the second of two saves under one probe key was refused, and changed nothing."""
    key = f"{PROBE_PREFIX}{secrets.token_hex(16)}"
    storage.save(key, [b"first"])
    try:
        storage.save(key, [b"second"])
    except AlreadyExistsError:
        return storage.load(key) == b"first"
    finally:
        storage.delete(key)
    return False
