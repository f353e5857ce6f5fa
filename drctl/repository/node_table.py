"""What a restore has to make, as one compact table: no Python object stays behind for a plain file.

Invariant: an entry's directory has a smaller number than the entry; number 0 is the target itself.
About 50 bytes and the name an entry, 20 bytes a piece of content, whatever the files' sizes.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from drctl.errors import CorruptError

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
    """Entries by number, column by column. Forked workers share its buffers; tables of parts of a
    snapshot, read apart, are put together by `extend`."""

    def __init__(self) -> None:
        self.parents = array("I")
        self._name_starts = array("Q")
        self._name_lengths = array("H")
        self._modes = array("H")
        self._uids = array("I")
        self._gids = array("I")
        self._mtimes = array("q")
        self._sizes = array("Q")
        self._first_pieces = array("I")
        self._piece_counts = array("I")
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
        _refuse_too_many(number + 1)
        try:
            self.parents.append(parent)
            self._name_starts.append(len(self._names))
            self._name_lengths.append(len(name))
            self._modes.append(mode)
            self._uids.append(owner[0])
            self._gids.append(owner[1])
            self._mtimes.append(mtime)
            self._sizes.append(size)
            self._first_pieces.append(len(self.piece_file))
            self._piece_counts.append(pieces)
        except (OverflowError, TypeError) as exc:
            for column in self._columns():
                del column[number:]
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

    def extend(self, other: NodeTable, parents: list[int]) -> int:
        """All entries of `other`, whose parents are positions in `parents`, a list of entries of this
        table; returns the number that the first one has here."""
        base, pieces, names = len(self), len(self.piece_file), len(self._names)
        _refuse_too_many(base + len(other))
        for mine, column in zip(self._columns(), other._columns(), strict=True):
            if column is other.parents:
                mine.extend([parents[position] for position in column])
            elif column is other._name_starts:
                mine.extend([start + names for start in column])
            elif column is other._first_pieces:
                mine.extend([first + pieces for first in column])
            else:
                mine.extend(column)
        self._names += other._names
        self.flags += other.flags
        self.contentless.extend([number + base for number in other.contentless])
        self.extras.update((number + base, extra) for number, extra in other.extras.items())
        self.piece_file.extend([number + base for number in other.piece_file])
        self.piece_blob.extend(other.piece_blob)
        self.piece_offset.extend(other.piece_offset)
        self.piece_reused += other.piece_reused
        return base

    def __getitem__(self, number: int) -> Planned:
        at = self._name_starts[number]
        return Planned(
            number,
            self.parents[number],
            bytes(self._names[at : at + self._name_lengths[number]]),
            self._modes[number],
            self._uids[number],
            self._gids[number],
            self._mtimes[number],
            self._sizes[number],
            self._first_pieces[number],
            self._piece_counts[number],
        )

    def __iter__(self) -> Iterator[Planned]:
        return map(self.__getitem__, range(len(self)))

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

    def _columns(self) -> tuple[array[int], ...]:
        return (
            self.parents,
            self._name_starts,
            self._name_lengths,
            self._modes,
            self._uids,
            self._gids,
            self._mtimes,
            self._sizes,
            self._first_pieces,
            self._piece_counts,
        )


def _refuse_too_many(entries: int) -> None:
    if entries > MAX_ENTRIES:
        raise CorruptError(f"the snapshot has more than {MAX_ENTRIES} entries")
