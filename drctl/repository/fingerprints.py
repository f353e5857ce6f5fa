"""What every directory without subdirectories looked like at the last backup, and its tree.

A fingerprint covers all stamps of a directory's entries, so an unchanged directory costs its
listing, and its tree need not be read. Invariant: it is only a cache. It is bound to one snapshot
and checked as a whole; lost or damaged, it costs time; a full backup ignores it; and a directory is
entered only when everything in it was settled before the backup began that read it.
"""

from __future__ import annotations

import hashlib
import marshal
from collections.abc import Sequence

from drctl.ports import Entry
from drctl.repository.ids import ID_LENGTH, hash_of

MAX_DIRECTORIES = 300_000  # beyond this, sorting them would cost the memory the cache is to spare
_MAGIC = b"drctl fingerprints 1\n"
_PART = 16
_RECORD = 2 * _PART + ID_LENGTH
_HEADER = len(_MAGIC) + 2 * ID_LENGTH


def fingerprint_of(path: bytes, entries: Sequence[Entry]) -> bytes:
    """32 bytes: which directory, and what all its entries' stamps are."""
    where = hashlib.blake2b(path, digest_size=_PART).digest()
    # version 2 of marshal writes values only; later ones write reference counts' traces too
    stamps = marshal.dumps([tuple(entry) for entry in entries], 2)
    return where + hashlib.blake2b(stamps, digest_size=_PART).digest()


class Fingerprints:
    """Looks directories up in an encoded cache; forked workers share its bytes."""

    def __init__(self, records: bytes = b"") -> None:
        self._records = records

    def tree_of(self, fingerprint: bytes) -> bytes | None:
        """The tree of a directory that looks just so; None when it was not there or is not alike."""
        low, high = 0, len(self._records) // _RECORD
        while low < high:
            middle = (low + high) // 2
            at = middle * _RECORD
            found = self._records[at : at + 2 * _PART]
            if found == fingerprint:
                return self._records[at + 2 * _PART : at + _RECORD]
            if found < fingerprint:
                low = middle + 1
            else:
                high = middle
        return None


def encode_fingerprints(snapshot: bytes, records: list[bytes]) -> bytes:
    """The cache of one snapshot, out of fingerprints each followed by its tree's id."""
    body = b"".join(sorted(records))
    return _MAGIC + snapshot + hash_of(body) + body


def decode_fingerprints(data: bytes | None, snapshot: bytes) -> Fingerprints:
    """The cache of exactly that snapshot; an empty one where it is of another or damaged."""
    if data is None or not data.startswith(_MAGIC + snapshot):
        return Fingerprints()
    body = data[_HEADER:]
    if len(body) % _RECORD or hash_of(body) != data[_HEADER - ID_LENGTH : _HEADER]:
        return Fingerprints()
    return Fingerprints(body)
