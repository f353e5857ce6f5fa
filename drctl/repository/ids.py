"""Names of things in a repository: SHA-256 digests, raw inside, hexadecimal outside.

Invariant: an id is exactly 32 bytes; whatever comes from a file name or JSON is checked here.
"""

from __future__ import annotations

import hashlib
import re

from drctl.errors import CorruptError
from drctl.ports import Buffer
from drctl.repository.fields import brief

ID_LENGTH = 32
_HEX = re.compile(r"[0-9a-f]{64}")


def hash_of(data: Buffer) -> bytes:
    """The id of a blob (of its plaintext) or of a file (of its stored bytes)."""
    return hashlib.sha256(data).digest()


def parse_id(text: object, where: str) -> bytes:
    """The raw id of 64 lower-case hexadecimal digits; CorruptError naming `where` otherwise."""
    if not isinstance(text, str) or _HEX.fullmatch(text) is None:
        raise CorruptError(f"{where}: not an id: {brief(text)}")
    return bytes.fromhex(text)


def is_id(text: str) -> bool:
    """Whether a file name is an id."""
    return _HEX.fullmatch(text) is not None


def short(identifier: bytes) -> str:
    """The first eight digits, as people quote ids."""
    return identifier.hex()[:8]
