"""Blob ids met in this run, shared between processes without a lock.

Tables of growing size in shared memory, open addressing, 32 bytes a slot: pages that are never
touched cost nothing. Invariant: `claim` answers False only when some process of this run has
claimed exactly this id; two that claim at the same instant may both get True, which stores the
blob twice and harms nothing. A torn slot matches no id.
"""

from __future__ import annotations

import mmap

from drctl.repository.pack import BlobType

_TABLE_BITS = (16, 18, 20, 22, 24)
_SLOT = 32
_FREE = bytes(_SLOT)
_MAX_PROBES = 32  # where it takes longer, the next larger table is used
_FULL = 0.6  # beyond this load a table takes no more, so that looking into it stays short
_MAP_NORESERVE = 0x4000


class SeenBlobs:
    """Create it before forking; every process then claims in the same tables."""

    def __init__(self) -> None:
        self._tables = [(bits, _shared(_SLOT << bits)) for bits in _TABLE_BITS]
        # how many each table holds, about: two processes may count at the same instant
        self._counts = memoryview(_shared(8 * len(_TABLE_BITS))).cast("Q")

    def claim(self, identifier: bytes, kind: BlobType) -> bool:
        """True: nobody has it, it is the caller's to store. False: it is being stored."""
        if kind is BlobType.TREE:
            identifier = identifier[::-1]  # a file may hold the very bytes of a tree: two blobs
        start = int.from_bytes(identifier[:8], "little")
        for number, (bits, table) in enumerate(self._tables):
            mask = (1 << bits) - 1
            for probe in range(_MAX_PROBES):
                at = ((start + probe) & mask) * _SLOT
                slot = table[at : at + _SLOT]
                if slot == identifier:
                    return False
                if slot == _FREE:
                    if self._counts[number] > _FULL * mask:
                        break
                    self._counts[number] += 1
                    table[at : at + _SLOT] = identifier
                    return True
        return True  # every table is full: more is stored than needed, nothing is lost


def _shared(size: int) -> mmap.mmap:
    return mmap.mmap(-1, size, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
