"""Unlock: what is stale goes, what lives stays, and a lock file that cannot be read bars nobody for ever."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

import pytest

from drctl.clock import SystemClock
from drctl.repository.repo import FileKind, Repository
from drctl.workflows.unlock import remove_every_lock, remove_locks, stale_locks
from tests.format.goldens import NEWEST, files, open_golden, store_as_named, unpack

CLOCK = SystemClock()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return unpack(NEWEST, tmp_path)


@pytest.fixture
def repository(directory: Path) -> Repository:
    return open_golden(NEWEST, directory)


def _age(path: Path, age: timedelta) -> None:
    then = time.time() - age.total_seconds()
    os.utime(path, (then, then))


@pytest.mark.parametrize(("minutes", "stale"), [(29, False), (31, True)])
def test_a_lock_file_that_cannot_be_read_is_judged_by_its_age(
    directory: Path, repository: Repository, minutes: int, stale: bool
) -> None:
    torn = store_as_named(directory, FileKind.LOCK, b"torn")
    _age(torn, timedelta(minutes=minutes))
    found, living = stale_locks(repository, CLOCK)
    assert (len(found), len(living)) == (int(stale), int(not stale))
    remove_locks(repository, found)
    assert torn.exists() is not stale


def test_looking_leaves_no_lock_of_ours(directory: Path, repository: Repository) -> None:
    assert stale_locks(repository, CLOCK) == ([], [])
    assert files(directory, FileKind.LOCK) == []


def test_a_held_lock_lives_and_goes_only_with_all(directory: Path, repository: Repository) -> None:
    with repository.take_lock(CLOCK) as lock:
        lock.confirm(keep_fresh=False)
        found, living = stale_locks(repository, CLOCK)
        assert (found, len(living)) == ([], 1)
        assert remove_every_lock(repository) == 1
    assert files(directory, FileKind.LOCK) == []
