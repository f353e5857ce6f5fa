"""Copying snapshots into a repository of another key: only what is missing, the snapshot last.

Invariant: a blob is opened and hashed before it is sealed anew, trees are copied as the bytes they
are (fields that drctl does not know survive), and a snapshot is written only when all it needs is
stored and indexed. Whatever kills a run, the next one goes on where it stopped.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from drctl.domain.events import Emit, Noticed, Progressed
from drctl.errors import CorruptError, DrctlError, StorageError
from drctl.ports import Clock
from drctl.repository.crew import Crew
from drctl.repository.crypto import OVERHEAD
from drctl.repository.ids import short
from drctl.repository.index import BlobTable
from drctl.repository.index_writer import IndexWriter
from drctl.repository.pack import PACK_TARGET, BlobType, PackedBlob
from drctl.repository.packer import Packer, seal_blob
from drctl.repository.reach import Marks, Walk, mark_reachable, read_blobs
from drctl.repository.repo import FileKind, Repository
from drctl.repository.snapshot import Snapshot, time_text
from drctl.repository.uploads import Uploads

_NEEDED, _DONE = 1, 2  # marks: reached in this batch; copied, or there already
_BATCH_BYTES = 4 * PACK_TARGET  # so much is copied before snapshots are written ...
_BATCH_SNAPSHOTS = 64  # ... or so many of them: fewer small packs, and little to lose in a crash


# --- plan ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CopyVerdict:
    """Whether a snapshot is copied, and why."""

    snapshot: Snapshot
    is_missing: bool
    reason: str


def plan_copy(wanted: Iterable[Snapshot], present: Iterable[Snapshot]) -> list[CopyVerdict]:
    """Which of the `wanted` snapshots the target lacks, oldest first. One is there when a snapshot
    of the same origin and the same tree is, whatever its tags."""
    there = {_identity(snapshot): snapshot for snapshot in present}
    verdicts = []
    for snapshot in sorted(wanted, key=lambda snapshot: (snapshot.time, snapshot.id or b"")):
        twin = there.get(_identity(snapshot))
        if twin is not None:
            verdicts.append(CopyVerdict(snapshot, False, f"there as {short(twin.id or b'')}"))
        else:
            verdicts.append(CopyVerdict(snapshot, True, "missing"))
            there[_identity(snapshot)] = snapshot
    return verdicts


def _identity(snapshot: Snapshot) -> tuple[bytes | None, bytes]:
    return snapshot.original or snapshot.id, snapshot.tree


def restated(snapshot: Snapshot) -> Snapshot:
    """As it is written into the target: of its own making no more, with our first receipt time."""
    copied = replace(snapshot, parent=None, original=snapshot.original or snapshot.id)
    return copied.with_facts(received=time_text(snapshot.received))


# --- doing it ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CopiedSnapshot:
    """A snapshot and its copy; None, and what is wrong, where it could not be copied."""

    snapshot: Snapshot
    copy: Snapshot | None
    problem: str | None = None


@dataclass(frozen=True)
class CopyWalk(Walk):
    """What the copying processes share: the source to read, the target's key to seal with."""

    target: Repository


class SealedBlob(NamedTuple):
    """A blob as the target stores it."""

    id: bytes
    type: BlobType
    sealed: tuple[bytes, bytes, bytes]
    raw_length: int


def start_copy(source: Repository, table: BlobTable, target: Repository) -> CopyWalk:
    """With nothing copied yet; `table` is the source's index."""
    return CopyWalk(source, table, Marks(len(table)), target)


class Copier:
    """Copies snapshot after snapshot with a crew made of its walk. `check` is called often and
    raises to abort (a lost lock, an interrupt)."""

    def __init__(
        self, walk: CopyWalk, crew: Crew[CopyWalk], clock: Clock, check: Callable[[], None], emit: Emit
    ) -> None:
        self._walk = walk
        self._crew = crew
        self._clock = clock
        self._check = check
        self._emit = emit
        self._there = walk.target.load_index()
        self.blobs = 0
        self.bytes = 0

    def copy(self, snapshots: Sequence[Snapshot]) -> Iterator[CopiedSnapshot]:
        """Copy them in this order. A snapshot that is damaged in the source is skipped and told;
        a target that fails ends it."""
        waiting = list(snapshots)
        while waiting:
            batch = _Batch(self._walk.target, self._clock, self._check)
            try:
                outcomes = list(self._fill(batch, waiting))
                batch.finish()
            finally:
                batch.abandon()
            for snapshot, problem in outcomes:
                self._check()
                copy = None if problem else self._walk.target.save_snapshot(restated(snapshot))
                yield CopiedSnapshot(snapshot, copy, problem)

    def _fill(self, batch: _Batch, waiting: list[Snapshot]) -> Iterator[tuple[Snapshot, str | None]]:
        start = self.bytes
        for _ in range(_BATCH_SNAPSHOTS):
            if not waiting or self.bytes - start > _BATCH_BYTES:
                return
            snapshot = waiting.pop(0)
            problem = self._copy_blobs(snapshot, batch)
            if problem:
                self._emit(Noticed(f"snapshot {short(snapshot.id or b'')} not copied: {problem}"))
            yield snapshot, problem

    def _copy_blobs(self, snapshot: Snapshot, batch: _Batch) -> str | None:
        """Bring everything a snapshot needs into the batch; what is wrong with it in the source."""
        file = FileKind.SNAPSHOT.key(snapshot.id or b"")
        found = mark_reachable(self._crew, self._walk, [(file, snapshot.tree)])
        if found:
            # whoever shares these trees must meet the damage, too
            self._walk.marks.replace(_NEEDED, 0)
            return found[0].line
        try:
            for blobs in self._crew.run(_seal_anew, _tasks_of(self._missing())):
                self._check()
                for blob in blobs:
                    self.bytes += batch.add(blob)
                    self.blobs += 1
                self._emit(Progressed(self.blobs, self.bytes, f"snapshot {short(snapshot.id or b'')}"))
        except CorruptError as exc:
            self._walk.marks.replace(_NEEDED, 0)
            return exc.message
        self._walk.marks.replace(_NEEDED, _DONE)
        return None

    def _missing(self) -> Iterator[array[int]]:
        """Positions of the needed blobs that the target lacks, in tasks of one pack and about a
        pack's bytes."""
        by_pack: dict[int, array[int]] = {}
        for position in self._walk.marks.positions(_NEEDED):
            blob = self._walk.table.at(position)[1]
            if not self._there.has(blob.id, blob.type):
                number = self._walk.table.pack_number_at(position)
                by_pack.setdefault(number, array("I")).append(position)
        for positions in by_pack.values():
            yield from _by_bytes(self._walk.table, positions)


def _tasks_of(tasks: Iterator[array[int]]) -> Callable[[], array[int] | None]:
    """As `Crew.run` takes them."""
    return lambda: next(tasks, None)


def _by_bytes(table: BlobTable, positions: array[int]) -> Iterator[array[int]]:
    task, size = array("I"), 0
    for position in positions:
        task.append(position)
        size += table.at(position)[1].length
        if size >= PACK_TARGET:
            yield task
            task, size = array("I"), 0
    if task:
        yield task


def _seal_anew(walk: CopyWalk, positions: array[int]) -> list[SealedBlob]:
    """Read, prove and seal some blobs of one pack; CorruptError names the first that is damaged."""
    places = [walk.table.at(position) for position in positions]
    sealed = []
    for blob, plain in read_blobs(walk.repository, places[0][0], [blob for _, blob in places]):
        if isinstance(plain, StorageError):
            raise CorruptError(plain.message)
        if isinstance(plain, DrctlError):
            raise plain
        sealed.append(_seal(walk.target, blob, plain))
    return sealed


def _seal(target: Repository, blob: PackedBlob, plain: bytes) -> SealedBlob:
    parts, raw_length = seal_blob(blob.id, plain, target.sealer(), target.codec(), blob.type)
    return SealedBlob(blob.id, blob.type, parts, raw_length)


class _Batch:
    """Packs that are filled, stored and indexed together."""

    def __init__(self, target: Repository, clock: Clock, check: Callable[[], None]) -> None:
        self._uploads = Uploads(target.save_pack)
        self._index = IndexWriter(target, clock, check)
        self._packers = {
            kind: Packer(kind, target.sealer(), target.codec(), self._uploads.submit) for kind in BlobType
        }

    def add(self, blob: SealedBlob) -> int:
        """Returns its stored bytes."""
        self._packers[blob.type].add_sealed(blob.id, blob.sealed, blob.raw_length)
        self._index.add(self._uploads.take_stored())
        return OVERHEAD + len(blob.sealed[1])

    def finish(self) -> None:
        """All packs stored, then named by an index."""
        for packer in self._packers.values():
            packer.flush()
        self._index.add(self._uploads.finish())
        self._index.flush()

    def abandon(self) -> None:
        """Start nothing more."""
        self._uploads.abandon()
