"""Backing one source of a service up into a repository.

Invariant: the snapshot is written last, and its time is the moment before reading began (the
consistency point). A run that fails writes no snapshot; what it stored is found again by the next.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from drctl import __version__
from drctl.domain.events import Emit, Noticed, Started
from drctl.domain.plan import Chunker
from drctl.errors import ExitCode
from drctl.ports import Cache, Clock, Source, TreeSource
from drctl.repository.archive import Archived, Watch, archive_tree
from drctl.repository.archive_job import Counts, Job, Problem, cutter_factory, settled_before
from drctl.repository.archive_stream import archive_stream
from drctl.repository.fingerprints import (
    MAX_DIRECTORIES,
    Fingerprints,
    decode_fingerprints,
    encode_fingerprints,
)
from drctl.repository.keys import username
from drctl.repository.repo import Repository
from drctl.repository.seen import SeenBlobs
from drctl.repository.snapshot import Snapshot, Summary


@dataclass(frozen=True, slots=True)
class BackupRequest:
    """What is to be backed up and as what. `full` re-reads every byte; otherwise metadata that did
    not change since the newest snapshot of the same source is trusted."""

    service: str
    source_name: str
    hostname: str
    full: bool
    chunker: Chunker = Chunker.FASTCDC
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What became of a backup. `problems` are entries that are not, or not surely, as they were."""

    snapshot: Snapshot
    counts: Counts
    problems: tuple[Problem, ...]

    @property
    def exit_code(self) -> ExitCode:
        """INCOMPLETE when anything of the source was not read, or changed meanwhile."""
        return ExitCode.INCOMPLETE if self.problems else ExitCode.OK


def run_backup(
    repository: Repository,
    source: Source,
    request: BackupRequest,
    clock: Clock,
    emit: Emit,
    stop: Callable[[], None],
    cache: Cache | None = None,
) -> BackupReport:
    """Take one backup under a shared lock. `stop` is called often and raises to interrupt. Errors:
    SourceError (nothing could be read), LockedError, and whatever the storage says."""
    make_cutter = cutter_factory(request.chunker, repository.config.chunker_polynomial)
    with repository.take_lock(clock) as lock:
        earlier = newest_of(repository.snapshots(), request, paths_of(source))
        _warn_of_other_chunker(earlier, request, emit)
        repository.load_index()
        lock.confirm(keep_fresh=False)  # the workers are forked first
        started = clock.now()
        emit(Started("backup"))

        def check() -> None:
            lock.check()
            stop()

        watch = Watch(clock, emit, check, forked=lock.keep_fresh)
        if isinstance(source, TreeSource):
            trusted = earlier if not request.full and source.trusts_metadata else None
            job = Job(
                repository,
                source,
                SeenBlobs(),
                make_cutter,
                trust_before_ns=settled_before(trusted.time) if trusted else 0,
                settled_before_ns=settled_before(started),
                fingerprints=_fingerprints_of(trusted, request, repository, cache),
            )
            archived = archive_tree(job, watch, earlier.tree if earlier else None)
        else:
            archived = archive_stream(repository, source, make_cutter, started, watch)
        check()
        snapshot = repository.save_snapshot(
            _describe(request, source, earlier, started, clock.now(), archived)
        )
        if cache is not None and snapshot.id and len(archived.fingerprints) <= MAX_DIRECTORIES:
            data = encode_fingerprints(snapshot.id, archived.fingerprints)
            cache.save(_cache_name(request, repository), data)
        return BackupReport(snapshot, archived.counts, archived.problems)


def _fingerprints_of(
    trusted: Snapshot | None, request: BackupRequest, repository: Repository, cache: Cache | None
) -> Fingerprints:
    if trusted is None or trusted.id is None or cache is None:
        return Fingerprints()
    return decode_fingerprints(cache.load(_cache_name(request, repository)), trusted.id)


def _cache_name(request: BackupRequest, repository: Repository) -> str:
    which = "\0".join((repository.config.id, request.service, request.source_name, request.hostname))
    return f"fingerprints-{hashlib.sha256(which.encode()).hexdigest()[:32]}"


def newest_of(snapshots: list[Snapshot], request: BackupRequest, paths: tuple[str, ...]) -> Snapshot | None:
    """The newest snapshot of the same source: what an incremental compares with. Where drctl has
    made none yet, one that restic made of the same paths of the same host."""
    same = [
        snapshot
        for snapshot in snapshots
        if snapshot.service == request.service
        and snapshot.source == request.source_name
        and snapshot.hostname == request.hostname
    ]
    of_restic = [
        snapshot
        for snapshot in snapshots
        if snapshot.service is None and snapshot.hostname == request.hostname and snapshot.paths == paths
    ]
    return max(same or of_restic, key=lambda snapshot: snapshot.time, default=None)


def paths_of(source: Source) -> tuple[str, ...]:
    """What a source's snapshots say that they hold."""
    paths = source.roots if isinstance(source, TreeSource) else [source.path]
    return tuple(os.fsdecode(path) for path in paths)


def _warn_of_other_chunker(earlier: Snapshot | None, request: BackupRequest, emit: Emit) -> None:
    before = earlier.fact("chunker") if earlier else None
    if before is not None and before != request.chunker.value:
        emit(
            Noticed(
                f"chunker changed from {before} to {request.chunker.value}",
                hint="files over 512 KiB are cut differently now and stored once more",
            )
        )


def _describe(
    request: BackupRequest,
    source: Source,
    earlier: Snapshot | None,
    started: datetime,
    ended: datetime,
    archived: Archived,
) -> Snapshot:
    snapshot = Snapshot(
        time=started,
        tree=archived.tree,
        paths=paths_of(source),
        hostname=request.hostname,
        username=username(),
        uid=os.getuid(),
        gid=os.getgid(),
        tags=request.tags,
        parent=earlier.id if earlier else None,
        program_version=f"drctl {__version__}",
        summary=_summary(archived.counts, started, ended),
    )
    return snapshot.with_facts(
        service=request.service,
        source=request.source_name,
        # without an earlier one nothing could be trusted: every byte was read
        mode="full" if request.full or earlier is None else "incremental",
        chunker=request.chunker.value,
        state="partial" if any(problem.is_missing for problem in archived.problems) else None,
    )


def _summary(counts: Counts, started: datetime, ended: datetime) -> Summary:
    return replace(
        Summary(started, ended),
        files_new=counts.files_new,
        files_changed=counts.files_changed,
        files_unmodified=counts.files_unmodified,
        dirs_new=counts.dirs_new,
        dirs_changed=counts.dirs_changed,
        dirs_unmodified=counts.dirs_unmodified,
        data_blobs=counts.data_blobs,
        tree_blobs=counts.tree_blobs,
        data_added=counts.bytes_added,
        data_added_packed=counts.bytes_stored,
        total_files_processed=counts.files,
        total_bytes_processed=counts.bytes,
    )
