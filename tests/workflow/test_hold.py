"""Holds: put and released by rewriting a snapshot's record, without losing it or its age."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from drctl.clock import SystemClock
from drctl.domain.snapshot_facts import Hold
from drctl.errors import CorruptError, StorageError, UsageError
from drctl.repository.repo import FileKind, Repository
from drctl.repository.snapshot import Snapshot
from drctl.storage.local import LocalOptions, LocalStorage
from drctl.workflows.forget import plan_forget
from drctl.workflows.hold import hold, release
from tests.format.stock_restic import restics
from tests.workflow.forget_cases import (
    DAY,
    NOW,
    PASSWORD,
    REQUEST,
    listed,
    make_repository,
    nightly,
    received,
)

CLOCK = SystemClock()
LEGAL = Hold(name="legal", reason="case 7, see desk; ask ann", owner="ann=boss", expires=NOW + 90 * DAY)


@pytest.fixture
def made(tmp_path: Path) -> tuple[Repository, Snapshot]:
    repository, first = make_repository(tmp_path)
    return repository, received(repository, first, NOW - 60 * DAY)


def name(snapshot: Snapshot) -> str:
    assert snapshot.id is not None
    return snapshot.id.hex()


def test_a_held_snapshot_keeps_its_first_receipt_its_content_and_names_its_original(
    made: tuple[Repository, Snapshot],
) -> None:
    repository, old = made
    held = hold(repository, name(old), LEGAL, CLOCK)
    (read,) = [one for one in repository.snapshots() if one.id == held.id]
    assert read.holds == (LEGAL,)
    assert read.original == old.id
    assert read.received == old.received
    assert replace(read, tags=(), original=None) == replace(old, tags=(), original=None)
    assert name(old) not in listed(repository)


def test_a_released_snapshot_is_as_old_as_it_ever_was_and_goes_when_due(
    made: tuple[Repository, Snapshot],
) -> None:
    repository, old = made
    held = hold(repository, name(old), LEGAL, CLOCK)
    assert plan_forget(repository, REQUEST, CLOCK.now()).judgement.going == ()
    released = release(repository, name(held), "legal", CLOCK)
    assert released.received == old.received
    assert released.original == old.id
    assert released.holds == ()
    (going,) = plan_forget(repository, REQUEST, CLOCK.now()).judgement.going
    assert going.snapshot.id == name(released)


def test_a_hold_with_commas_semicolons_and_equal_signs_comes_back_as_it_was(
    made: tuple[Repository, Snapshot],
) -> None:
    repository, old = made
    odd = Hold(name="a;b,c", reason="drctl.hold=x; 100 % \N{SNOWMAN}\n", owner="=,;")
    held = hold(repository, name(old), odd, CLOCK)
    assert repository.find_snapshot(name(held)).holds == (odd,)


def test_two_holds_are_released_one_by_one(made: tuple[Repository, Snapshot]) -> None:
    repository, old = made
    audit = Hold(name="audit", reason="yearly", owner="bo")
    both = hold(repository, name(hold(repository, name(old), LEGAL, CLOCK)), audit, CLOCK)
    assert both.holds == (LEGAL, audit)
    assert release(repository, name(both), "legal", CLOCK).holds == (audit,)


def test_the_id_people_noted_down_is_found_after_a_rewrite(made: tuple[Repository, Snapshot]) -> None:
    repository, old = made
    hold(repository, name(old)[:8], LEGAL, CLOCK)
    assert release(repository, name(old)[:8], "legal", CLOCK).holds == ()


def test_the_same_hold_put_twice_changes_nothing(made: tuple[Repository, Snapshot]) -> None:
    repository, old = made
    held = hold(repository, name(old), LEGAL, CLOCK)
    before = listed(repository)
    assert hold(repository, name(held), LEGAL, CLOCK).id == held.id
    assert listed(repository) == before


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (replace(LEGAL, expires=NOW - timedelta(seconds=1)), "hold 'legal' is over already"),
        (replace(LEGAL, reason=" "), "a hold needs a name, a reason and an owner"),
        (replace(LEGAL, owner=""), "a hold needs a name, a reason and an owner"),
        (replace(LEGAL, name=""), "a hold needs a name, a reason and an owner"),
    ],
)
def test_a_hold_without_words_or_that_is_over_is_refused(
    made: tuple[Repository, Snapshot], held: Hold, message: str
) -> None:
    repository, old = made
    with pytest.raises(UsageError) as caught:
        hold(repository, name(old), held, CLOCK)
    assert caught.value.message == message
    assert name(old) in listed(repository)


def test_a_hold_is_not_replaced_by_another_of_its_name(made: tuple[Repository, Snapshot]) -> None:
    repository, old = made
    held = hold(repository, name(old), LEGAL, CLOCK)
    with pytest.raises(UsageError, match="held by legal"):
        hold(repository, name(held), replace(LEGAL, expires=NOW + DAY), CLOCK)
    assert repository.find_snapshot(name(held)).holds == (LEGAL,)


def test_releasing_what_is_not_held_names_the_holds_there_are(made: tuple[Repository, Snapshot]) -> None:
    repository, old = made
    held = hold(repository, name(old), LEGAL, CLOCK)
    with pytest.raises(UsageError) as caught:
        release(repository, name(held), "leagl", CLOCK)
    assert caught.value.hint == "holds on it: legal"


class Stopping(LocalStorage):
    """Fails at the first save or at the first delete of a snapshot, as often as told."""

    def __init__(self, options: LocalOptions) -> None:
        super().__init__(options)
        self.fails_at = ""

    def save(self, key: str, parts: object) -> None:
        if self.fails_at == "save" and key.startswith("snapshots/"):
            raise StorageError("full")
        super().save(key, parts)  # type: ignore[arg-type]

    def delete(self, key: str) -> None:
        if self.fails_at == "delete" and key.startswith("snapshots/"):
            raise StorageError("gone away")
        super().delete(key)


@pytest.mark.parametrize("step", ["save", "delete"])
def test_a_hold_interrupted_at_any_step_loses_nothing_and_is_finished_by_the_same_command(
    tmp_path: Path, step: str
) -> None:
    storage = Stopping(LocalOptions(str(tmp_path / "repository")))
    repository, first = make_repository(tmp_path, storage)
    old = received(repository, first, NOW - 60 * DAY)
    storage.fails_at = step
    with pytest.raises(StorageError):
        hold(repository, name(old), LEGAL, CLOCK)
    assert name(old) in listed(repository)
    storage.fails_at = ""
    held = hold(repository, name(old), LEGAL, CLOCK)
    assert listed(repository) == {name(first), name(held)}
    assert held.received == old.received


class Garbling(LocalStorage):
    """Acknowledges a snapshot's record and keeps another one."""

    garbles = False

    def save(self, key: str, parts: object) -> None:
        super().save(key, parts)  # type: ignore[arg-type]
        if self.garbles and key.startswith("snapshots/"):
            path = Path(self.location, key)
            path.chmod(0o600)
            path.write_bytes(path.read_bytes()[:-1] + b"?")


def test_the_old_record_stays_where_the_new_one_does_not_read_back(tmp_path: Path) -> None:
    storage = Garbling(LocalOptions(str(tmp_path / "repository")))
    repository, first = make_repository(tmp_path, storage)
    storage.garbles = True
    with pytest.raises(CorruptError):
        hold(repository, name(first), LEGAL, CLOCK)
    assert Path(storage.location, "snapshots", name(first)).exists()


def test_a_hold_can_be_put_while_a_backup_runs(made: tuple[Repository, Snapshot]) -> None:
    repository, old = made
    with repository.take_lock(CLOCK) as running:
        running.confirm()
        assert hold(repository, name(old), LEGAL, CLOCK).holds == (LEGAL,)


@pytest.mark.parametrize("restic", restics())
def test_stock_restic_reads_a_held_snapshot_and_a_hold_survives_its_own_tagging(
    made: tuple[Repository, Snapshot], restic: str
) -> None:
    repository, old = made
    nightly(repository, old, range(1, 3))
    held = hold(repository, name(old), LEGAL, CLOCK)
    _restic(restic, repository, "tag", "--add", "theirs", name(held))
    listing = json.loads(_restic(restic, repository, "snapshots", "--json"))
    (theirs,) = [one for one in listing if "theirs" in one.get("tags", [])]
    retagged = repository.find_snapshot(theirs["id"])
    assert retagged.holds == (LEGAL,)
    assert retagged.received == old.received
    assert retagged.original == old.id
    _restic(restic, repository, "check")


def _restic(restic: str, repository: Repository, *arguments: str) -> str:
    return subprocess.run(
        [restic, "--no-cache", "-r", repository.storage.location, *arguments],
        env={**os.environ, "RESTIC_PASSWORD": PASSWORD},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout


def test_nothing_but_the_snapshots_record_is_written(made: tuple[Repository, Snapshot]) -> None:
    repository, old = made
    packs = {stored.id for stored in repository.files(FileKind.INDEX)}
    hold(repository, name(old), LEGAL, CLOCK)
    assert {stored.id for stored in repository.files(FileKind.INDEX)} == packs
