"""Repositories for the tests of prune and copy, made once and copied for each test."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from pathlib import Path

from drctl.clock import SystemClock
from drctl.domain.events import ignore
from drctl.repository.check import check_repository
from drctl.repository.opening import open_repository
from drctl.repository.prune import PrunePlan, UnusedLimit
from drctl.repository.repo import FileKind, Repository
from drctl.repository.sample import Everything
from drctl.storage.local import LocalOptions, LocalStorage
from drctl.workflows.prune import PruneReport, run_prune
from tests import restic

ZERO = UnusedLimit(None, 0)


def open_local(directory: Path) -> Repository:
    """Open a repository of the tests' password."""
    return open_repository(LocalStorage(LocalOptions(str(directory))), restic.PASSWORD)


def cheapen(directory: Path) -> None:
    """Replace the stock key by one whose scrypt takes no time; the password stays."""
    expensive = open_local(directory)
    expensive.add_key(restic.PASSWORD, SystemClock(), restic.CHEAP)
    (directory / FileKind.KEY.key(expensive.key_id)).unlink()


def make_repository(place: Path, program: str, version: int = 2, megabytes: int = 24) -> Path:
    """Three snapshots that share some and differ in some: `megabytes` of noise in files of 100 KiB
    to 2 MiB. Between them a third of the files goes and others come."""
    directory, source = place / "repo", place / "source"
    dice = random.Random(megabytes)
    restic.run(program, directory, "init", "-q", "--repository-version", str(version))
    cheapen(directory)
    (source / "sub").mkdir(parents=True)
    for round_ in range(3):
        total = 0
        while total < megabytes * 2**20 // (1 + round_):
            data = dice.randbytes(dice.choice([100_000, 300_000, 2_000_000]))
            (source / "sub" / f"{round_}-{total}").write_bytes(data)
            total += len(data)
        (source / "always").write_bytes(b"the same every time\n" * 1000)
        (source / "changing").write_text(f"round {round_}\n" * 100)
        restic.run(program, directory, "backup", "-q", ".", cwd=source)
        for path in dice.sample(sorted((source / "sub").iterdir()), k=len(os.listdir(source / "sub")) // 3):
            path.unlink()
    return directory


def copied(directory: Path, place: Path) -> Path:
    """A copy a test may harm."""
    return Path(shutil.copytree(directory, place / "copy"))


def forget(repository: Repository, *numbers: int) -> None:
    """Remove snapshots, counted from the oldest."""
    snapshots = repository.snapshots()
    for number in numbers:
        repository.remove(FileKind.SNAPSHOT, snapshots[number].id or b"")


def prune(
    repository: Repository, limit: UnusedLimit = ZERO, *, remove_everything: bool = False
) -> PruneReport:
    """Plan, approve, prune."""

    def approve(_plan: PrunePlan) -> bool:
        return True

    return run_prune(repository, limit, approve, SystemClock(), ignore, remove_everything=remove_everything)


def assert_clean(directory: Path) -> None:
    """Our own check finds nothing at all."""
    assert check_repository(open_local(directory), Everything()).findings == ()


def contents(program: str, directory: Path, place: Path, snapshot: str = "latest") -> dict[str, str]:
    """What stock restic restores of a snapshot: names and content hashes."""
    target = place / f"restored-{snapshot}-{len(os.listdir(place))}"
    restic.run(program, directory, "restore", "-q", snapshot, "--target", str(target))
    found = {
        str(path.relative_to(target)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(target.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
    shutil.rmtree(target)
    assert found
    return found


def stored_packs(directory: Path) -> set[str]:
    """Names of the packs there are."""
    return {path.name for path in (directory / "data").rglob("*") if path.is_file()}
