"""Which texts are storage keys, and what the temporary files beside them are called.

Invariant: no key climbs out of its storage, and no key is the name of a temporary or hidden file.
"""

from __future__ import annotations

import re
import secrets

from drctl.errors import StorageError

PROBE_PREFIX = "drctl-probe/"
"""Where probes write: no repository uses these keys, and restic does not look there."""

CONDITIONAL_PROBE = ".drctl-probe"
"""Hidden object that proves conditional PUT; it stays, so that a later proof costs one request."""

_SEGMENT = re.compile(r"[a-z0-9_-][a-z0-9_.-]*")
_FOREIGN_TEMPORARY = "-tmp-"  # what restic's local storage puts into its temporary files' names
_LONGEST_KEY = 512


def check_key(key: str) -> str:
    """The key itself; StorageError when it is none (see `ports.Storage`)."""
    if len(key) > _LONGEST_KEY or not all(is_visible(segment) for segment in key.split("/")):
        raise StorageError(f"not a storage key: {key[:80]!r}")
    return key


def check_prefix(prefix: str) -> str:
    """The prefix itself: empty, or a key followed by `/`; else StorageError."""
    if prefix:
        if not prefix.endswith("/"):
            raise StorageError(f"not a storage prefix: {prefix[:80]!r}", hint="end it in /")
        check_key(prefix[:-1])
    return prefix


def is_visible(name: str) -> bool:
    """Whether a file or directory of this name can be part of a key. What cannot is left out of
    listings: temporary files (ours start with a dot), and what a person put there."""
    return _SEGMENT.fullmatch(name) is not None and _FOREIGN_TEMPORARY not in name


def is_key(text: str) -> bool:
    """Whether every segment is visible."""
    return len(text) <= _LONGEST_KEY and all(is_visible(segment) for segment in text.split("/"))


def temporary_name() -> str:
    """A new name that no key can have."""
    return f".drctl-{secrets.token_hex(8)}.tmp"


def is_own_temporary(name: str) -> bool:
    """Whether `temporary_name` made it."""
    return name.startswith(".drctl-") and name.endswith(".tmp")
