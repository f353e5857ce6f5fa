"""Prune over repositories of stock restic: what is needed stays, what is not goes, and can be shown."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from drctl.clock import SystemClock
from drctl.domain.events import ignore
from drctl.errors import CorruptError, ExitCode, LockedError, RefusedError, StorageError, UnreachableError
from drctl.ports import StoredFile
from drctl.repository.prune import Fate, PrunePlan, UnusedLimit
from drctl.repository.repo import FileKind, Repository
from drctl.storage.local import LocalOptions, LocalStorage
from drctl.workflows.prune import run_prune
from tests import restic
from tests.format.goldens import NAMES, flip, picture, store_as_named, unpack
from tests.workflow.upkeep_cases import (
    ZERO,
    assert_clean,
    cheapen,
    contents,
    copied,
    forget,
    make_repository,
    open_local,
    prune,
    stored_packs,
)

NEWEST = restic.PROGRAMS[-1]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_repository(tmp_path_factory.mktemp("made"), NEWEST)


@pytest.fixture
def directory(made: Path, tmp_path: Path) -> Path:
    return copied(made, tmp_path)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("program", restic.PROGRAMS)
def test_every_restic_accepts_what_we_pruned_and_restores_the_same(
    name: str, program: str, tmp_path: Path
) -> None:
    directory = unpack(name, tmp_path)
    cheapen(directory)
    before = contents(program, directory, tmp_path)
    repository = open_local(directory)
    forget(repository, 0)
    report = prune(repository)
    assert report.result is not None
    assert report.result.packs_removed > 0
    restic.assert_accepts(program, directory)
    assert contents(program, directory, tmp_path) == before
    assert_clean(directory)


@pytest.mark.parametrize("limit", [ZERO, UnusedLimit(5.0), UnusedLimit(50.0), UnusedLimit(None, 10**12)])
def test_what_stays_unused_is_within_the_limit(directory: Path, tmp_path: Path, limit: UnusedLimit) -> None:
    before = contents(NEWEST, directory, tmp_path)
    repository = open_local(directory)
    forget(repository, 0)
    plan = prune(repository, limit).plan
    assert plan.unused_before > 0
    assert plan.unused_after <= limit.allowed(plan.used_bytes)
    restic.assert_accepts(NEWEST, directory)
    assert contents(NEWEST, directory, tmp_path) == before


@pytest.mark.parametrize("program", restic.PROGRAMS)
def test_what_restic_pruned_is_clean_to_us(directory: Path, program: str) -> None:
    repository = open_local(directory)
    forget(repository, 0)
    restic.run(program, directory, "prune", "-q", "--max-unused", "0")
    assert_clean(directory)
    assert prune(open_local(directory)).result is None


def test_pruning_twice_prunes_nothing_more(directory: Path) -> None:
    repository = open_local(directory)
    forget(repository, 0, 1)
    assert prune(repository, UnusedLimit(5.0)).result is not None
    before = picture(directory)
    report = prune(open_local(directory), UnusedLimit(5.0))
    assert report.plan.is_empty
    assert report.result is None
    assert picture(directory) == before


def test_without_unused_data_nothing_is_written(directory: Path) -> None:
    before = picture(directory)
    report = prune(open_local(directory))
    assert (report.plan.is_empty, report.result) == (True, None)
    assert picture(directory) == before


def test_a_plan_that_is_not_approved_changes_nothing(directory: Path) -> None:
    repository = open_local(directory)
    forget(repository, 0)
    before = picture(directory)
    shown: list[PrunePlan] = []

    def disapprove(plan: PrunePlan) -> bool:
        shown.append(plan)
        return False

    report = run_prune(repository, ZERO, disapprove, SystemClock(), ignore)
    assert report.result is None
    assert shown[0].freed_bytes > 0
    assert all(verdict.reason for verdict in shown[0].verdicts)
    assert picture(directory) == before


# --- proof of absence


def _sealed_blobs(repository: Repository) -> dict[tuple[int, bytes], bytes]:
    """Of every blob: type and id -> its bytes as stored."""
    return {
        (blob.type, blob.id): repository.storage.load(FileKind.PACK.key(pack), blob.offset, blob.length)
        for pack, blob in repository.load_index()
    }


def _needed(repository: Repository) -> set[tuple[int, bytes]]:
    from drctl.repository.crew import Crew
    from drctl.repository.reach import mark_reachable, start_walk

    table = repository.load_index()
    walk = start_walk(repository, table)
    roots = [("snapshot", snapshot.tree) for snapshot in repository.snapshots()]
    with Crew(walk) as crew:
        assert mark_reachable(crew, walk, roots) == []
    found = {}
    for position in range(len(table)):
        blob = table.at(position)[1]
        if walk.marks[position]:
            found[(blob.type, blob.id)] = True
    return set(found)


def test_with_a_limit_of_zero_no_byte_of_a_forgotten_blob_is_left(directory: Path) -> None:
    repository = open_local(directory)
    sealed = _sealed_blobs(repository)
    packs_before = {
        name: (directory / "data" / name[:2] / name).read_bytes() for name in stored_packs(directory)
    }
    forget(repository, 0)
    needed = _needed(repository)
    gone = [data for key, data in sealed.items() if key not in needed]
    assert len(gone) > 5
    report = prune(repository)
    assert report.result is not None
    assert report.result.proves_absence
    left = b"".join(path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file())
    for data in gone:
        assert data[16:48] not in left  # the ciphertext's first bytes
    for name, whole in packs_before.items():
        if name not in stored_packs(directory):
            assert whole[-40:] not in left  # nor the header that named it
    assert {(blob.type, blob.id) for _, blob in open_local(directory).load_index()} == needed


def test_with_a_limit_above_zero_absence_is_not_claimed(directory: Path) -> None:
    repository = open_local(directory)
    forget(repository, 0)
    result = prune(repository, UnusedLimit(5.0)).result
    assert result is not None
    assert not result.proves_absence


def test_data_and_trees_stay_in_packs_of_their_own(directory: Path) -> None:
    repository = open_local(directory)
    forget(repository, 0, 1)
    assert prune(repository).plan.packs(Fate.REPACK)
    kinds: dict[bytes, set[int]] = {}
    for pack, blob in open_local(directory).load_index():
        kinds.setdefault(pack, set()).add(blob.type)
    assert all(len(found) == 1 for found in kinds.values())


def test_packs_of_an_interrupted_backup_go(directory: Path) -> None:
    stray = store_as_named(directory, FileKind.PACK, b"left by a killed backup")
    os.utime(stray, (1, 1))
    report = prune(open_local(directory))
    assert [(v.file, v.fate) for v in report.plan.packs(Fate.REMOVE)] == [
        (str(stray.relative_to(directory)), Fate.REMOVE)
    ]
    assert not stray.exists()
    assert_clean(directory)


def test_foreign_files_are_left_alone(directory: Path) -> None:
    repository = open_local(directory)
    forget(repository, 0)
    foreign = directory / "data" / "readme.txt"
    foreign.write_text("hello")
    misplaced = directory / "data" / "ab" / ("0" * 64)
    misplaced.parent.mkdir(exist_ok=True)
    misplaced.write_text("hello")
    prune(repository)
    assert foreign.exists()
    assert misplaced.exists()


def test_copies_of_a_blob_beyond_the_one_kept_go(directory: Path) -> None:
    """As two backups at once leave them: the same blobs in two packs."""
    repository = open_local(directory)
    from drctl.repository.pack import BlobType
    from drctl.repository.packer import FinishedPack, Packer

    again: list[FinishedPack] = []
    packer = Packer(BlobType.DATA, repository.sealer(), repository.codec(), again.append)
    for _, blob in list(repository.load_index())[:10]:
        if blob.type is BlobType.DATA:
            packer.add(blob.id, repository.load_blob(blob.id, blob.type))
    packer.flush()
    for pack in again:
        repository.save_pack(pack)
        repository.save_index([(pack.id, pack.blobs)])
    before = len(_sealed_blobs(repository))
    prune(repository)
    listed = [key for pack, key in _every_listed_blob(open_local(directory))]
    assert len(listed) == len(set(listed)) == before
    restic.assert_accepts(NEWEST, directory)


def _every_listed_blob(repository: Repository) -> Iterator[tuple[bytes, tuple[int, bytes]]]:
    for stored in repository.files(FileKind.INDEX):
        for pack, blobs in repository.index_file(stored.id):
            for blob in blobs:
                yield pack, (blob.type, blob.id)


def test_a_pack_named_by_two_index_files_is_not_two_packs(directory: Path) -> None:
    repository = open_local(directory)
    for stored in list(repository.files(FileKind.INDEX)):
        repository.save_index(list(repository.index_file(stored.id)))
    forget(repository, 0)
    prune(repository)
    restic.assert_accepts(NEWEST, directory)
    assert prune(open_local(directory)).plan.is_empty


# --- what is refused: an error, and nothing deleted


def _assert_refused(directory: Path, repository: Repository, error: type[Exception], match: str) -> None:
    before = {name for name in picture(directory) if not name.startswith("locks/")}
    with pytest.raises(error, match=match):
        prune(repository)
    assert {name for name in picture(directory) if not name.startswith("locks/")} >= before
    assert not list((directory / "locks").iterdir())


def test_a_damaged_index_is_refused(directory: Path) -> None:
    repository = open_local(directory)
    forget(repository, 0)
    path = sorted((directory / "index").iterdir())[0]
    path.chmod(0o600)
    flip(path, 50)
    _assert_refused(directory, repository, CorruptError, path.name)


def test_a_damaged_snapshot_is_refused(directory: Path) -> None:
    repository = open_local(directory)
    path = sorted((directory / "snapshots").iterdir())[0]
    path.chmod(0o600)
    flip(path, 50)
    _assert_refused(directory, repository, CorruptError, path.name)


def test_a_missing_pack_that_is_needed_is_refused(directory: Path) -> None:
    repository = open_local(directory)
    newest = _needed(repository)
    forget(repository, 0)
    for pack, blob in repository.load_index():
        if blob.type == 0 and (blob.type, blob.id) in newest:
            (directory / FileKind.PACK.key(pack)).unlink()
            _assert_refused(directory, repository, CorruptError, f"{pack.hex()}: missing")
            return
    raise AssertionError("no data pack")


def test_a_truncated_pack_that_is_needed_is_refused(directory: Path) -> None:
    repository = open_local(directory)
    forget(repository, 0)
    for name in stored_packs(directory):
        path = directory / "data" / name[:2] / name
        path.chmod(0o600)
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptError):
        prune(repository)
    assert len(stored_packs(directory)) > 0


def test_a_damaged_blob_that_must_be_copied_stops_everything(directory: Path) -> None:
    """Repacking verifies: damage is never sealed into a new pack, nor its source deleted."""
    repository = open_local(directory)
    forget(repository, 0)
    plan = run_prune(repository, ZERO, lambda _: False, SystemClock(), ignore).plan
    needed = _needed(repository)
    repacked = {verdict.id for verdict in plan.packs(Fate.REPACK)}
    for pack, blob in repository.load_index():
        if pack in repacked and blob.type == 0 and (blob.type, blob.id) in needed:
            path = directory / FileKind.PACK.key(pack)
            path.chmod(0o600)
            flip(path, blob.offset + 20)
            _assert_refused(directory, repository, CorruptError, f"{pack.hex()}: blob {blob.id.hex()[:8]}")
            return
    raise AssertionError("nothing to repack")


def test_a_repository_without_any_snapshot_is_refused_unless_told(directory: Path) -> None:
    repository = open_local(directory)
    forget(repository, 0, 1, 2)
    with pytest.raises(RefusedError) as caught:
        prune(repository)
    assert caught.value.exit_code is ExitCode.REFUSED
    assert stored_packs(directory)
    prune(repository, remove_everything=True)
    assert not stored_packs(directory)
    restic.assert_accepts(NEWEST, directory)


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_repository_in_use_is_not_pruned(directory: Path, exclusive: bool) -> None:
    writer = open_local(directory)
    repository = open_local(directory)
    forget(repository, 0)
    with writer.take_lock(SystemClock(), exclusive=exclusive):
        before = picture(directory)
        with pytest.raises(LockedError) as caught:
            prune(repository)
        assert caught.value.exit_code is ExitCode.LOCKED
        assert picture(directory) == before
    assert prune(repository).result is not None


def test_a_pack_written_under_our_exclusive_lock_stops_the_prune(directory: Path) -> None:
    repository = open_local(directory)
    forget(repository, 0)
    storage = _SneakyStorage(LocalOptions(str(directory)))
    repository.storage = storage
    storage.directory = directory
    packs = stored_packs(directory)
    with pytest.raises(LockedError, match="written after the repository was locked"):
        prune(repository)
    assert stored_packs(directory) > packs


class _SneakyStorage(LocalStorage):
    """While packs are listed, somebody without a lock has just written one."""

    directory: Path

    def list(self, prefix: str) -> Iterator[StoredFile]:
        if prefix == "data/":
            store_as_named(self.directory, FileKind.PACK, b"of a writer without a lock")
        return super().list(prefix)


def test_a_snapshot_that_appears_while_a_plan_is_approved_stops_the_prune(directory: Path) -> None:
    repository = open_local(directory)
    saved = repository.snapshots()[0]
    forget(repository, 0)
    packs = stored_packs(directory)

    def approve(_plan: PrunePlan) -> bool:
        repository.save_snapshot(saved)
        return True

    with pytest.raises(LockedError, match=r"snapshots/.* appeared"):
        run_prune(repository, ZERO, approve, SystemClock(), ignore)
    assert stored_packs(directory) >= packs
    restic.assert_accepts(NEWEST, directory)


def test_a_lock_that_is_lost_meanwhile_stops_the_prune_before_anything_is_deleted(directory: Path) -> None:
    repository = open_local(directory)
    forget(repository, 0)
    packs = stored_packs(directory)

    def approve(_plan: PrunePlan) -> bool:
        for path in (directory / "locks").iterdir():
            path.unlink()  # as `unlock --remove-all` does
        return True

    with pytest.raises(LockedError, match="lost"):
        run_prune(repository, ZERO, approve, SystemClock(), ignore)
    assert stored_packs(directory) >= packs


class _FailingStorage(LocalStorage):
    """Lists some of a folder, then fails, or silently ends."""

    fails_in = ""
    silently = False

    def list(self, prefix: str) -> Iterator[StoredFile]:
        for number, stored in enumerate(super().list(prefix)):
            if prefix == self.fails_in and number == 1:
                if self.silently:
                    return
                raise UnreachableError(f"{self.location}: no answer in 1 s")
            yield stored

    def delete(self, key: str) -> None:
        assert key.startswith("locks/"), f"{key} was deleted after a listing failed"
        super().delete(key)


@pytest.mark.parametrize("folder", ["snapshots/", "index/", "data/"])
def test_a_listing_that_fails_midway_deletes_nothing(directory: Path, folder: str) -> None:
    repository = open_local(directory)
    forget(repository, 0)
    storage = _FailingStorage(LocalOptions(str(directory)))
    storage.fails_in = folder
    repository.storage = storage
    with pytest.raises(UnreachableError):
        prune(repository)
    storage.fails_in = ""
    restic.assert_accepts(NEWEST, directory)


@pytest.mark.parametrize("folder", ["index/", "data/"])
def test_a_listing_that_ends_early_without_an_error_deletes_nothing(directory: Path, folder: str) -> None:
    repository = open_local(directory)
    forget(repository, 0)
    storage = _FailingStorage(LocalOptions(str(directory)))
    storage.fails_in, storage.silently = folder, True
    repository.storage = storage
    with pytest.raises(CorruptError):
        prune(repository)
    restic.assert_accepts(NEWEST, directory)


class _FullStorage(LocalStorage):
    """Has no room for packs."""

    def save(self, key: str, parts: object) -> None:
        if key.startswith("data/"):
            raise StorageError(f"{self.location}: save {key}: no space left on device")
        super().save(key, parts)  # type: ignore[arg-type]


def test_a_full_storage_loses_nothing(directory: Path, tmp_path: Path) -> None:
    before = contents(NEWEST, directory, tmp_path)
    repository = open_local(directory)
    forget(repository, 0)
    repository.storage = _FullStorage(LocalOptions(str(directory)))
    with pytest.raises(StorageError, match="no space"):
        prune(repository)
    restic.assert_accepts(NEWEST, directory)
    assert contents(NEWEST, directory, tmp_path) == before
    assert prune(open_local(directory)).result is not None
