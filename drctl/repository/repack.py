"""Carrying out a prune, in the only safe order.

Invariant: new packs -> new index -> old index files deleted -> old packs deleted. A kill anywhere
leaves every needed blob in a stored and indexed pack; before the first deletion and between the
phases the lock is proven to be ours still, and nobody has added a snapshot or an index.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from drctl.domain.events import Emit, Finished, Progressed, Started, ignore
from drctl.errors import CorruptError, LockedError, StorageError
from drctl.ports import Clock
from drctl.repository.crypto import IV_LENGTH, TAG_LENGTH
from drctl.repository.index import index_fragment
from drctl.repository.index_writer import IndexWriter
from drctl.repository.lock import HeldLock
from drctl.repository.pack import BlobType, PackedBlob, encode_header
from drctl.repository.packer import Packer
from drctl.repository.packread import PackWindow, read_header
from drctl.repository.prune import HINT_CHECK, Fate, PrunePlan
from drctl.repository.reach import stretches
from drctl.repository.repo import FileKind, Repository
from drctl.repository.survey import PackListing, header_digest
from drctl.repository.uploads import StoredPack, Uploads
from drctl.repository.usage import Usage

_DELETIONS = 64  # between two looks at the lock
_DELETING_THREADS = 8


@dataclass(frozen=True, slots=True)
class PruneResult:
    """What was done. Bytes are stored ones."""

    packs_written: int
    packs_removed: int
    index_files_written: int
    index_files_removed: int
    bytes_before: int
    bytes_after: int
    proves_absence: bool


@dataclass(frozen=True)
class _Job:
    repository: Repository
    plan: PrunePlan
    usage: Usage
    lock: HeldLock
    clock: Clock
    emit: Emit


def apply_prune(
    repository: Repository, plan: PrunePlan, usage: Usage, lock: HeldLock, clock: Clock, emit: Emit = ignore
) -> PruneResult:
    """Do what the plan says, under the exclusive `lock`. CorruptError when a blob that must be
    copied is damaged, StorageError or UnreachableError when the storage fails: what was needed
    before is then still there, and another run finishes."""
    job = _Job(repository, plan, usage, lock, clock, emit)
    index = IndexWriter(repository, clock, lock.check)
    index_before = {stored.id for stored in repository.files(FileKind.INDEX)}
    written = _write_packs(job, index)
    superseded = _write_index(job, index)
    index.flush()
    index_after = {stored.id for stored in repository.files(FileKind.INDEX)}
    _prove_alone(job, index_before)
    _delete(job, "old index files", FileKind.INDEX, superseded)
    removed = [verdict.id for verdict in plan.packs(Fate.REPACK, Fate.REMOVE)]
    _delete(job, "old packs", FileKind.PACK, removed)
    return _result(job, written, removed, len(index_after - index_before), len(superseded))


# --- writing -------------------------------------------------------------------------------


def _write_packs(job: _Job, index: IndexWriter) -> list[StoredPack]:
    """Copy what is needed out of the packs to be repacked; data and trees into packs of their own."""
    verdicts = job.plan.packs(Fate.REPACK)
    job.emit(Started("repack", len(verdicts), job.plan.repacked_bytes))
    uploads = Uploads(job.repository.save_pack)
    written: list[StoredPack] = []
    packers = {
        kind: Packer(kind, job.repository.sealer(), job.repository.codec(), uploads.submit)
        for kind in BlobType
    }

    def note(packs: list[StoredPack]) -> None:
        written.extend(packs)
        index.add(packs)

    try:
        copied = 0
        for done, listing in enumerate(_listings(job, (verdict.id for verdict in verdicts)), 1):
            job.lock.check()
            copied += _copy_blobs(job, listing, packers)
            note(uploads.take_stored())
            job.emit(Progressed(done, copied, listing.file))
        for packer in packers.values():
            packer.flush()
        note(uploads.finish())
    finally:
        uploads.abandon()
    index.flush()
    job.emit(Finished("repack"))
    return written


def _listings(job: _Job, packs: Iterable[bytes]) -> Iterator[PackListing]:
    for pack in packs:
        listing = job.usage.survey.listing(pack)
        assert listing is not None  # the plan was made of the same survey
        yield listing


def _copy_blobs(job: _Job, listing: PackListing, packers: dict[BlobType, Packer]) -> int:
    """Copy a pack's wanted blobs as they are sealed, each proven to open to its id; the bytes."""
    repository = job.repository
    window = PackWindow(repository, listing.file, listing.size)
    blobs, _ = read_header(repository, window)
    if header_digest(encode_header(blobs)) != listing.digest:
        raise CorruptError(f"{listing.file}: its header is not what the index says of it", hint=HINT_CHECK)
    copied = 0
    for stretch in stretches(job.usage.wanted(listing, blobs)):
        start = stretch[0].offset
        data = window.read(start, stretch[-1].offset + stretch[-1].length - start)
        for blob in stretch:
            sealed = data[blob.offset - start : blob.offset - start + blob.length]
            repository.open_blob(sealed, blob, listing.file)
            copied += packers[blob.type].add_sealed(blob.id, _parts(sealed), blob.raw_length)
    return copied


def _parts(sealed: memoryview) -> tuple[bytes, bytes, bytes]:
    return (
        bytes(sealed[:IV_LENGTH]),
        bytes(sealed[IV_LENGTH:-TAG_LENGTH]),
        bytes(sealed[-TAG_LENGTH:]),
    )


def _write_index(job: _Job, index: IndexWriter) -> list[bytes]:
    """Name the packs that stay in new index files; returns the old ones that name packs that go."""
    going = {verdict.id for verdict in job.plan.packs(Fate.REPACK, Fate.REMOVE, Fate.DROP)}
    staying: set[bytes] = set()
    superseded = []
    for stored in job.usage.survey.index_files:
        packs = list(job.repository.index_file(stored.id))
        if all(pack not in going for pack, _ in packs):
            continue
        superseded.append(stored.id)
        for pack, blobs in packs:
            if pack not in going and pack not in staying:
                staying.add(pack)
                index.add([_restated(pack, blobs)])
    return superseded


def _restated(pack: bytes, blobs: list[PackedBlob]) -> StoredPack:
    return StoredPack(pack, len(blobs), 0, index_fragment(pack, blobs))


# --- deleting ------------------------------------------------------------------------------


def _prove_alone(job: _Job, index_before: set[bytes]) -> None:
    """LockedError unless the lock is ours still and nobody wrote although it is held."""
    job.lock.refresh()
    job.lock.check()
    known = {stored.id for stored in job.usage.survey.index_files}
    snapshots = {stored.id for stored in job.repository.files(FileKind.SNAPSHOT)}
    for what, strangers in (
        (FileKind.SNAPSHOT, snapshots - job.usage.snapshots),
        (FileKind.INDEX, index_before - known),
    ):
        for stranger in strangers:
            raise LockedError(
                f"{what.key(stranger)} appeared while the repository was locked for the prune",
                hint="somebody writes without a lock: end that first; nothing was deleted",
            )


def _delete(job: _Job, what: str, kind: FileKind, identifiers: list[bytes]) -> None:
    job.emit(Started(f"delete {what}", len(identifiers)))
    waiting = iter(identifiers)
    done = 0
    with ThreadPoolExecutor(_DELETING_THREADS, thread_name_prefix="delete") as pool:
        while batch := list(islice(waiting, _DELETIONS)):
            job.lock.check()
            for _ in pool.map(lambda identifier: job.repository.remove(kind, identifier), batch):
                done += 1
            job.emit(Progressed(done, 0, what))
    job.emit(Finished(f"delete {what}"))


def _result(
    job: _Job, written: list[StoredPack], removed: list[bytes], index_written: int, index_removed: int
) -> PruneResult:
    """Looks once more: what is claimed to be gone must be gone."""
    sizes = {stored.id: stored.size for stored in job.repository.files(FileKind.PACK)}
    for pack in removed:
        if pack in sizes:
            raise StorageError(
                f"{FileKind.PACK.key(pack)} is still there after it was deleted",
                hint="does the storage keep deleted files for a while? run prune again",
            )
    before = sum(verdict.size for verdict in job.plan.verdicts)
    return PruneResult(
        packs_written=len(written),
        packs_removed=len(removed),
        index_files_written=index_written,
        index_files_removed=index_removed,
        bytes_before=before,
        bytes_after=sum(sizes.values()),
        proves_absence=job.plan.proves_absence,
    )
