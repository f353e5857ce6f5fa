"""What a repository holds and what it takes: counts and bytes, by kind of file and of blob.

Invariant: counting reads nothing but listings, snapshots and the index, one index file at a time;
what each snapshot restores to takes the trees, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from drctl.ports import Clock
from drctl.repository.pack import BlobType
from drctl.repository.repo import FileKind, Repository
from drctl.repository.stats import ContentStats, survey_content


@dataclass(frozen=True, slots=True)
class Amount:
    """How many, and how many bytes together."""

    count: int
    bytes: int


@dataclass(frozen=True, slots=True)
class RepositoryStats:
    """`files`: what lies in the storage. `blobs`: what the index names, as stored, and `plain_bytes`
    before compression and encryption. `backed_up_bytes`: of all snapshots, as if each were whole;
    None where a snapshot does not tell (older restic)."""

    snapshots: int
    files: Mapping[FileKind, Amount]
    blobs: Mapping[BlobType, Amount]
    plain_bytes: int
    backed_up_bytes: int | None

    @property
    def stored_bytes(self) -> int:
        """All that lies in the storage."""
        return sum(amount.bytes for amount in self.files.values())


def survey_stats(repository: Repository) -> RepositoryStats:
    """Count. Blobs that are stored twice count twice: the next prune removes one."""
    snapshots = repository.snapshots()
    told = [snapshot.summary.total_bytes_processed for snapshot in snapshots if snapshot.summary]
    blobs = {kind: Amount(0, 0) for kind in BlobType}
    plain = 0
    for stored in repository.files(FileKind.INDEX):
        for _pack, entries in repository.index_file(stored.id):
            for blob in entries:
                before = blobs[blob.type]
                blobs[blob.type] = Amount(before.count + 1, before.bytes + blob.length)
                plain += blob.plain_length or blob.length
    return RepositoryStats(
        snapshots=len(snapshots),
        files={kind: _amount(repository, kind) for kind in FileKind},
        blobs=blobs,
        plain_bytes=plain,
        backed_up_bytes=sum(told) if len(told) == len(snapshots) else None,
    )


def _amount(repository: Repository, kind: FileKind) -> Amount:
    sizes = [stored.size for stored in repository.files(kind)]
    return Amount(len(sizes), sum(sizes))


def run_content_stats(repository: Repository, clock: Clock) -> ContentStats:
    """Read all trees under a shared lock: what each snapshot restores to, and what nothing needs."""
    with repository.take_lock(clock) as lock:
        lock.confirm(keep_fresh=False)  # the workers are forked first
        return survey_content(repository, lock.keep_fresh)
