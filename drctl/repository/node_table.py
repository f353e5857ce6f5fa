"""What a restore has to make, as one compact table: no Python object stays behind for a plain file.

Invariant: an entry's directory has a smaller number than the entry; number 0 is the target itself.
About 60 bytes and the name an entry, 20 bytes a piece of content, whatever the files' sizes.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from drctl.errors import CorruptError

_RECORD = struct.Struct("<IQHHIIqQII")
_FORMAT, _DIRECTORY = 0o170000, 0o040000
MAX_ENTRIES = 50_000_000  # more than any file system that was seen; bounds a tree that repeats itself

SCAFFOLD = 1  # a directory on the way to what was selected, not selected itself
STAGED = 2  # its content comes from several places: made before them, completed after them
KEPT = 4  # the target has the right content already
LINKED = 8  # a further name of an earlier entry
FAILED = 16  # could not be made; nothing below it is tried
FOUND = 32  # a directory that was there before


class Planned(NamedTuple):
    """One entry. `mode` is st_mode; content is `pieces` pieces from number `first` on."""

    number: int
    parent: int
    name: bytes
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int
    first: int
    pieces: int


@dataclass(frozen=True, slots=True)
class Extra:
    """What only some entries have. `atime_ns` is None where it equals the mtime."""

    link_target: bytes = b""
    device: int = 0
    extended_attributes: tuple[tuple[bytes, bytes], ...] = ()
    atime_ns: int | None = None


NO_EXTRA = Extra()


class NodeTable:
    """Entries by number. Forked workers share its buffers."""

    def __init__(self) -> None:
        self._records = bytearray()
        self._names = bytearray()
        self.flags = bytearray()
        self.directories = array("I")
        self.contentless = array("I")  # all that is neither a directory nor has pieces
        self.extras: dict[int, Extra] = {}
        self.first_of_link: dict[int, int] = {}  # a further name -> the entry it is a name of
        self.piece_file = array("I")
        self.piece_blob = array("I")  # positions in the index
        self.piece_offset = array("Q")  # in the file
        self.piece_reused = bytearray()  # 1: the target has these bytes already

    def __len__(self) -> int:
        return len(self.flags)

    def add(
        self, parent: int, name: bytes, mode: int, owner: tuple[int, int], mtime: int, size: int, pieces: int
    ) -> int:
        """One more entry, mtime in ns; its pieces are added next. CorruptError for numbers out of range."""
        number = len(self.flags)
        if number >= MAX_ENTRIES:
            raise CorruptError(f"the snapshot has more than {MAX_ENTRIES} entries")
        try:
            self._records += _RECORD.pack(
                parent,
                len(self._names),
                len(name),
                mode,
                *owner,
                mtime,
                size,
                len(self.piece_file),
                pieces,
            )
        except struct.error as exc:
            text = name.decode("utf-8", "backslashreplace")[:80]
            raise CorruptError(f"{text!r}: a number of it is out of range: {exc}") from exc
        self._names += name
        self.flags.append(0)
        if not pieces:
            (self.directories if mode & _FORMAT == _DIRECTORY else self.contentless).append(number)
        return number

    def add_pieces(self, number: int, blobs: list[int], offsets: list[int]) -> None:
        """The pieces of the entry added last."""
        count = len(blobs)
        self.piece_file.extend([number] * count)
        self.piece_blob.extend(blobs)
        self.piece_offset.extend(offsets)
        self.piece_reused += bytes(count)

    def __getitem__(self, number: int) -> Planned:
        parent, at, length, mode, uid, gid, mtime, size, first, pieces = _RECORD.unpack_from(
            self._records, number * _RECORD.size
        )
        name = bytes(self._names[at : at + length])
        return Planned(number, parent, name, mode, uid, gid, mtime, size, first, pieces)

    def __iter__(self) -> Iterator[Planned]:
        return map(self.__getitem__, range(len(self)))

    def parent(self, number: int) -> int:
        """Its directory."""
        return int.from_bytes(self._records[number * _RECORD.size : number * _RECORD.size + 4], "little")

    def extra_of(self, number: int) -> Extra:
        """What it has beyond a plain file."""
        return self.extras.get(number, NO_EXTRA)

    def path(self, number: int) -> bytes:
        """Its path relative to the target."""
        parts = []
        while number:
            node = self[number]
            parts.append(node.name)
            number = node.parent
        return b"/".join(reversed(parts)) or b"."
