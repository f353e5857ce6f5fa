"""A repository in a directory whose snapshots were received when a test says."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from drctl.clock import SystemClock
from drctl.domain.events import ignore
from drctl.domain.plan import Retention
from drctl.domain.secret import Secret
from drctl.ports import Storage
from drctl.repository.crypto import ScryptCost
from drctl.repository.opening import create_repository
from drctl.repository.repo import Repository
from drctl.repository.snapshot import Snapshot
from drctl.sources.files import FilesOptions, FilesSource
from drctl.storage.local import LocalOptions, LocalStorage
from drctl.workflows.backup import BackupRequest, run_backup
from drctl.workflows.forget import ForgetRequest

PASSWORD = "correct horse"
DAY = timedelta(days=1)
MONTH = Retention(keep_at_least=30 * DAY, gone_by=32 * DAY)
REQUEST = ForgetRequest("shop", MONTH, "UTC")
NOW = SystemClock().now()  # the storage's clock is the machine's


class ShiftedClock(SystemClock):
    """The machine's clock, gone wrong by `shift`."""

    def __init__(self, shift: timedelta) -> None:
        self.shift = shift

    def now(self) -> datetime:
        return super().now() + self.shift


def make_repository(base: Path, storage: Storage | None = None) -> tuple[Repository, Snapshot]:
    """A repository with one real backup of a small tree."""
    tree = base / "tree"
    tree.mkdir()
    (tree / "letter").write_bytes(b"dear reader" * 1000)
    storage = storage or LocalStorage(LocalOptions(str(base / "repository")))
    repository = create_repository(storage, Secret(PASSWORD), SystemClock(), cost=ScryptCost(n=2))
    source = FilesSource(FilesOptions(paths=(str(tree),)))
    request = BackupRequest("shop", "files", "web1", full=True)
    report = run_backup(repository, source, request, SystemClock(), ignore, lambda: None)
    return repository, report.snapshot


def received(repository: Repository, snapshot: Snapshot, when: datetime) -> Snapshot:
    """Store a copy of the snapshot's record as if it had been received at `when`."""
    taken = replace(snapshot, time=when - timedelta(hours=1), id=None, stored_at=None)
    stored = repository.save_snapshot(taken)
    set_receipt(repository, stored, when)
    return replace(stored, stored_at=when)


def set_receipt(repository: Repository, snapshot: Snapshot, when: datetime) -> None:
    os.utime(record_of(repository, snapshot), (when.timestamp(), when.timestamp()))


def record_of(repository: Repository, snapshot: Snapshot) -> Path:
    assert snapshot.id is not None
    return Path(repository.storage.location, "snapshots", snapshot.id.hex())


def nightly(repository: Repository, snapshot: Snapshot, nights: range) -> dict[int, Snapshot]:
    """One record for each number of days ago."""
    return {ago: received(repository, snapshot, NOW - ago * DAY) for ago in nights}


def listed(repository: Repository) -> set[str]:
    return {one.id.hex() for one in repository.snapshots() if one.id}


def wait_a_tick() -> None:
    time.sleep(0.01)
