"""restic respects drctl's locks, and drctl restic's."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from drctl.clock import SystemClock
from drctl.domain.secret import Secret
from drctl.errors import LockedError
from drctl.repository.crypto import ScryptCost
from drctl.repository.opening import create_repository
from drctl.repository.repo import FileKind, Repository
from drctl.storage.local import LocalOptions, LocalStorage
from drctl.workflows.unlock import remove_locks, stale_locks
from tests.format.stock_restic import PASSWORD, Restic


@pytest.fixture
def restic(tmp_path: Path, restic_binary: str) -> Restic:
    return Restic(restic_binary, str(tmp_path / "repository"))


@pytest.fixture
def repository(restic: Restic) -> Repository:
    storage = LocalStorage(LocalOptions(restic.repository))
    return create_repository(storage, Secret(PASSWORD), SystemClock(), cost=ScryptCost(1024, 8, 1))


def test_restic_keeps_out_while_drctl_holds_an_exclusive_lock(repository: Repository, restic: Restic) -> None:
    with repository.take_lock(SystemClock(), exclusive=True) as lock:
        lock.confirm()
        refused = restic.run("backup", "/etc/hostname", check=False)
        assert refused.returncode != 0
        assert f"PID {os.getpid()}" in refused.stderr
        restic.run("unlock")  # of a process that lives: restic leaves it
        lock.refresh()
        lock.check()
    restic.run("backup", "/etc/hostname")


def test_restic_reads_and_writes_beside_a_shared_lock_but_does_not_prune(
    repository: Repository, restic: Restic
) -> None:
    with repository.take_lock(SystemClock()) as lock:
        lock.confirm()
        restic.run("backup", "/etc/hostname")
        assert restic.run("prune", check=False).returncode != 0
        lock.check()
    restic.run("prune")


def test_restic_unlock_of_all_locks_ends_ours(repository: Repository, restic: Restic) -> None:
    with repository.take_lock(SystemClock()) as lock:
        lock.confirm()
        restic.run("unlock", "--remove-all")
        lock.refresh()
        with pytest.raises(LockedError, match="removed by somebody"):
            lock.check()


def test_drctl_keeps_out_while_restic_holds_a_lock_and_unlocks_it_when_restic_was_killed(
    repository: Repository, restic: Restic, tmp_path: Path
) -> None:
    fifo = tmp_path / "never ends"
    os.mkfifo(fifo)
    feed = os.open(fifo, os.O_RDWR)
    process = subprocess.Popen(
        [restic.binary, "--no-cache", "--repo", restic.repository, "backup", "--stdin"],
        env={"PATH": os.environ["PATH"], "RESTIC_PASSWORD": PASSWORD},
        stdin=feed,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while not list(repository.files(FileKind.LOCK)) and time.monotonic() < deadline:
            time.sleep(0.05)
        with pytest.raises(LockedError, match=f"pid {process.pid}"):
            repository.take_lock(SystemClock(), exclusive=True)
        with repository.take_lock(SystemClock()) as shared:
            shared.confirm()
    finally:
        process.kill()
        process.wait()
        os.close(feed)
    with pytest.raises(LockedError):
        repository.take_lock(SystemClock(), exclusive=True)  # restic's locks do not prove whose they are
    stale, living = stale_locks(repository, SystemClock())
    assert ([record.pid for record in stale], living) == ([process.pid], [])
    remove_locks(repository, stale)
    repository.take_lock(SystemClock(), exclusive=True).release()
