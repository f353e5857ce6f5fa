"""What the backup tests share: a repository on disk, and backups of a directory into it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from drctl.clock import SystemClock
from drctl.domain.events import Emit, ignore
from drctl.domain.plan import Chunker
from drctl.domain.secret import Secret
from drctl.ports import Clock, Source, Storage
from drctl.repository.crypto import ScryptCost
from drctl.repository.opening import create_repository, open_repository
from drctl.repository.repo import Repository
from drctl.sources.files import FilesOptions, FilesSource
from drctl.storage.local import LocalOptions, LocalStorage
from drctl.workflows.backup import BackupReport, BackupRequest, run_backup
from tests.format.stock_restic import PASSWORD, Restic, restics

CHEAP = ScryptCost(n=2, r=1, p=1)  # a key file that opens at once


@dataclass(frozen=True)
class Place:
    """A repository, and a directory that is backed up into it."""

    repository: Path
    data: Path

    def storage(self) -> LocalStorage:
        """The repository's storage."""
        return LocalStorage(LocalOptions(str(self.repository)))

    def create(self) -> Repository:
        """Make the repository."""
        return create_repository(self.storage(), Secret(PASSWORD), SystemClock(), cost=CHEAP)

    def open(self, storage: Storage | None = None) -> Repository:
        """Open the repository anew."""
        return open_repository(storage or self.storage(), Secret(PASSWORD))

    def source(self, **options: object) -> FilesSource:
        """All of the data directory."""
        return FilesSource(FilesOptions((str(self.data),), **options))  # type: ignore[arg-type]

    def back_up(
        self,
        source: Source | None = None,
        *,
        full: bool = False,
        storage: Storage | None = None,
        clock: Clock | None = None,
        emit: Emit = ignore,
        stop: Callable[[], None] = lambda: None,
        chunker: Chunker = Chunker.FASTCDC,
        hostname: str = "host",
    ) -> BackupReport:
        """Take a backup through the workflow, as the command does."""
        request = BackupRequest("service", "files", hostname, full, chunker)
        return run_backup(
            self.open(storage), source or self.source(), request, clock or SystemClock(), emit, stop
        )

    def restic(self) -> Restic:
        """Stock restic on the repository."""
        return Restic(restics()[-1], str(self.repository))

    def restored(self, target: Path, snapshot: str = "latest") -> Path:
        """Where stock restic has put the data directory of a snapshot back."""
        self.restic().run("restore", snapshot, "--target", str(target))
        return target / str(self.data).lstrip("/")


def write_tree(root: Path, folders: int = 5, files: int = 8, seed: int = 0) -> None:
    """A small tree of distinct files."""
    for folder in range(folders):
        directory = root / f"folder-{folder}" / "deeper"
        directory.mkdir(parents=True, exist_ok=True)
        for file in range(files):
            (directory / f"{file}.txt").write_bytes(f"{seed}/{folder}/{file} ".encode() * (file * 40 + 1))
    settle()


def settle() -> None:
    """Let the kernel's clock tick: what changed within the tick in which a backup starts is read
    again by the next one, which these tests would mistake for a defect."""
    import time

    time.sleep(0.05)


def stored_files(place: Place) -> dict[str, int]:
    """The repository's files (without locks) and their sizes."""
    found = {}
    for directory, _, names in os.walk(place.repository):
        for name in names:
            path = os.path.join(directory, name)
            found[os.path.relpath(path, place.repository)] = os.path.getsize(path)
    return {path: size for path, size in found.items() if not path.startswith("locks/")}
