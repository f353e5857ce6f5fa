"""Blob ids met in this run, shared between processes without a lock.

Tables of doubling size in shared memory, open addressing, 32 bytes a slot: pages that are never
touched cost nothing. Invariant: `claim` answers False only when some process of this run has
claimed exactly this id; two that claim at the same instant may both get True, which stores the
blob twice and harms nothing. A torn slot matches no id.
"""

from __future__ import annotations

import mmap

from drctl.repository.pack import BlobType

_SMALLEST_BITS = 14
_LARGEST_BITS = 24
_SLOT = 32
_FREE = bytes(_SLOT)
_MAX_PROBES = 24  # a table in which it takes longer counts as full; the next, larger one is used
_MAP_NORESERVE = 0x4000


class SeenBlobs:
    """Create it before forking; every process then claims in the same tables."""

    def __init__(self) -> None:
        self._tables = [
            mmap.mmap(-1, _SLOT << bits, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
            for bits in range(_SMALLEST_BITS, _LARGEST_BITS + 1)
        ]

    def claim(self, identifier: bytes, kind: BlobType) -> bool:
        """True: nobody has it, it is the caller's to store. False: it is being stored."""
        if kind is BlobType.TREE:
            identifier = identifier[::-1]  # a file may hold the very bytes of a tree: two blobs
        start = int.from_bytes(identifier[:8], "little")
        bits = _SMALLEST_BITS
        for table in self._tables:
            mask = (1 << bits) - 1
            for probe in range(_MAX_PROBES):
                at = ((start + probe) & mask) * _SLOT
                slot = table[at : at + _SLOT]
                if slot == identifier:
                    return False
                if slot == _FREE:
                    table[at : at + _SLOT] = identifier
                    return True
            bits += 1
        return True  # every table is full: more is stored than needed, nothing is lost
