"""What the processes of one backup share, and the messages between them.

Invariant: everything here is frozen or shared memory; a job is made before the workers are forked.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import NamedTuple

from drctl.domain.plan import Chunker
from drctl.ports import Directory, Entry, TreeSource
from drctl.repository.chunker import Cutter, FastCdcCutter
from drctl.repository.fingerprints import Fingerprints
from drctl.repository.repo import Repository
from drctl.repository.seen import SeenBlobs
from drctl.repository.uploads import StoredPack

LARGE_FILE = 8 * 2**20  # from here on a file is read by the threads of the main process
# kernels stamp files by their tick: a change within it after we read leaves ctime as it was
_TICK_NS = 20_000_000


class Trouble(Enum):
    """What went wrong with one entry of a source."""

    UNREADABLE = "unreadable"
    VANISHED = "vanished"
    SWAPPED = "swapped"
    CHANGED = "changed while being read"


@dataclass(frozen=True, slots=True)
class Problem:
    """An entry of a source that is not, or not surely, in the snapshot as it was."""

    path: bytes
    trouble: Trouble
    reason: str

    @property
    def is_missing(self) -> bool:
        """Whether content that the source has is not in the snapshot."""
        return self.trouble in (Trouble.UNREADABLE, Trouble.SWAPPED)


@dataclass(slots=True)
class Counts:
    """Sums over one message or one run; bytes are of the source unless they say `stored`."""

    files_new: int = 0
    files_changed: int = 0
    files_unmodified: int = 0
    dirs_new: int = 0
    dirs_changed: int = 0
    dirs_unmodified: int = 0
    data_blobs: int = 0
    tree_blobs: int = 0
    bytes_added: int = 0
    bytes_stored: int = 0
    bytes: int = 0

    def add(self, other: Counts) -> None:
        """Sum up, field by field."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def files(self) -> int:
        """Files processed."""
        return self.files_new + self.files_changed + self.files_unmodified


class Task(NamedTuple):
    """Work for a worker: a directory, or a part of a huge one."""

    number: int
    path: bytes
    parent_tree: bytes | None
    part: list[Entry] | None = None  # only these entries (of a huge directory, or a root); None: all


class Child(NamedTuple):
    """A subdirectory: its node lacks the subtree, which is not known yet."""

    name: bytes
    unfinished_node: str
    parent_tree: bytes | None
    is_new: bool


class Answer(NamedTuple):
    """What became of a task. A directory without children, large files or parts is finished: `tree`
    is its id. Otherwise the main process finishes it out of `nodes` and what is still missing."""

    number: int
    tree: bytes | None
    nodes: list[tuple[bytes, str]]
    children: list[Child]
    large: list[tuple[Entry, bool]]  # and whether the parent has it (changed rather than new)
    parts: list[list[Entry]]
    problems: list[Problem]
    counts: Counts
    packs: list[StoredPack]
    fingerprint: bytes = b""  # of a finished directory that may be recognised by it next time
    opened: bool = True


@dataclass(frozen=True)
class Job:
    """One backup of one tree source."""

    repository: Repository
    source: TreeSource
    seen: SeenBlobs
    make_cutter: Callable[[], Cutter]
    trust_before_ns: int  # unchanged metadata is trusted if the last change lies before; 0: never
    settled_before_ns: int  # what changed later may change once more under the stamp it has now
    fingerprints: Fingerprints  # of the parent snapshot; empty for a full backup

    def open(self, path: bytes, name: bytes | None = None) -> Directory:
        """The directory at `path`, which may be known only for holding a root called `name`."""
        if name is not None and (root := below(path) + name) in self.source.roots:
            return self.source.open_root(root)
        return self.source.open_directory(path)

    @property
    def inline_limit(self) -> int:
        """Files below this many bytes are done by the worker that finds them."""
        return LARGE_FILE if self.source.block_size is None else 0


def below(path: bytes) -> bytes:
    """What stands before the names of a directory's entries."""
    return path if path.endswith(b"/") else path + b"/"


def settled_before(start: datetime) -> int:
    """Up to when (ns since the epoch) an unchanged stamp means an unchanged file, to a run that
    began at `start`: what changed later may have changed again, after it was read, under the very
    stamp that the run saw."""
    return int(start.timestamp() * 10**9) - _TICK_NS


def cutter_factory(chunker: Chunker, polynomial: int) -> Callable[[], Cutter]:
    """How this run cuts. A cutter that is not installed fails here, not in the middle of a backup."""
    match chunker:
        case Chunker.FASTCDC:
            return FastCdcCutter
        case Chunker.RESTIC:
            from drctl.repository.rabin import RabinCutter

            RabinCutter(polynomial)
            return lambda: RabinCutter(polynomial)


class LocalTimeText:
    """Nanoseconds as RFC 3339 in this machine's time zone, as restic writes node times (trees are
    shared across both tools only when they agree on that)."""

    def __init__(self) -> None:
        self._whole: dict[int, tuple[str, str]] = {}

    def __call__(self, nanoseconds: int) -> str:
        seconds, fraction = divmod(nanoseconds, 1_000_000_000)
        cached = self._whole.get(seconds)
        if cached is None:
            cached = self._render(seconds)
        if not fraction:
            return cached[0] + cached[1]
        return f"{cached[0]}.{fraction:09d}".rstrip("0") + cached[1]

    def _render(self, seconds: int) -> tuple[str, str]:
        if len(self._whole) > 50_000:
            self._whole.clear()
        # Go's encoder knows the years 0 to 9999 only; a file system may know more
        bounded = min(max(seconds, -62_167_219_200 + 86_400), 253_402_300_799 - 86_400)
        local = time.localtime(bounded)
        if local.tm_gmtoff % 60:
            # local mean time of long ago: RFC 3339 has no seconds in a zone, and restic's way of
            # cutting them off gives another instant back
            local = time.gmtime(bounded)
        offset = local.tm_gmtoff // 60
        sign = "-" if offset < 0 else "+"
        zone = f"{sign}{abs(offset) // 60:02d}:{abs(offset) % 60:02d}" if offset else "Z"
        whole = (
            f"{local.tm_year:04d}-{local.tm_mon:02d}-{local.tm_mday:02d}"
            f"T{local.tm_hour:02d}:{local.tm_min:02d}:{local.tm_sec:02d}"
        )
        return self._whole.setdefault(seconds, (whole, zone))
