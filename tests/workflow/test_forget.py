"""Forgetting: what was shown and nothing else, judged anew, braked, and interruptible anywhere."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from drctl.clock import SystemClock
from drctl.domain.brakes import BrakeName
from drctl.domain.events import Event, Progressed, ignore
from drctl.domain.plan import Retention
from drctl.domain.retention import Group
from drctl.domain.snapshot_facts import Hold
from drctl.errors import InterruptedRunError, LockedError, RefusedError, StorageError, UnreachableError
from drctl.ports import Storage
from drctl.repository.repo import FileKind, Repository
from drctl.repository.snapshot import Snapshot
from drctl.storage.local import LocalOptions, LocalStorage
from drctl.workflows.forget import ForgetPlan, ForgetReport, apply_forget, plan_forget, policy_tag
from drctl.workflows.hold import hold
from tests.format.stock_restic import restics
from tests.workflow.forget_cases import (
    DAY,
    MONTH,
    NOW,
    PASSWORD,
    REQUEST,
    ShiftedClock,
    listed,
    make_repository,
    nightly,
    received,
    set_receipt,
)

CLOCK = SystemClock()


@pytest.fixture
def made(tmp_path: Path) -> tuple[Repository, Snapshot]:
    return make_repository(tmp_path)


def plan(repository: Repository, now: datetime | None = None) -> ForgetPlan:
    return plan_forget(repository, REQUEST, now or CLOCK.now())


def apply(repository: Repository, planned: ForgetPlan, **overrides: str) -> ForgetReport:
    named = {BrakeName(name.replace("_", "-")): reason for name, reason in overrides.items()}
    return apply_forget(repository, planned, CLOCK, ignore, lambda: None, named)


def ids(snapshots: object) -> set[str]:
    return {one.id.hex() for one in snapshots}  # type: ignore[attr-defined]


def test_what_is_due_goes_and_the_rest_stays_and_forgetting_twice_forgets_nothing_more(
    made: tuple[Repository, Snapshot],
) -> None:
    repository, first = made
    nights = nightly(repository, first, range(1, 34))
    planned = plan(repository)
    report = apply(repository, planned)
    assert [facts.id for facts in report.forgotten] == [nights[ago].id.hex() for ago in (31, 32, 33)]  # type: ignore[union-attr]
    assert listed(repository) == ids([first, *(nights[ago] for ago in range(1, 31))])
    assert apply(repository, plan(repository)).forgotten == ()


def test_planning_changes_nothing(made: tuple[Repository, Snapshot]) -> None:
    repository, first = made
    nightly(repository, first, range(1, 60))
    before = sorted((path, path.stat().st_mtime_ns) for path in Path(repository.storage.location).rglob("*"))
    plan(repository)
    after = sorted((path, path.stat().st_mtime_ns) for path in Path(repository.storage.location).rglob("*"))
    assert before == after


@pytest.mark.parametrize("restic", restics())
def test_stock_restic_sees_what_is_left_and_that_all_is_well(
    made: tuple[Repository, Snapshot], restic: str
) -> None:
    repository, first = made
    nightly(repository, first, range(1, 34))
    apply(repository, plan(repository))
    kept = _restic(restic, repository, "snapshots", "--json")
    assert {one["id"] for one in json.loads(kept)} == listed(repository)
    _restic(restic, repository, "check", "--read-data")


def _restic(restic: str, repository: Repository, *arguments: str) -> str:
    return subprocess.run(
        [restic, "--no-cache", "-r", repository.storage.location, *arguments],
        env={**os.environ, "RESTIC_PASSWORD": PASSWORD},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout


def test_another_service_is_not_touched(made: tuple[Repository, Snapshot]) -> None:
    repository, first = made
    other = received(repository, first.with_facts(service="crm"), NOW - 90 * DAY)
    foreign = received(repository, replace(first, tags=()), NOW - 90 * DAY)
    nightly(repository, first, range(32, 34))
    apply(repository, plan(repository))
    assert ids([other, foreign]) <= listed(repository)


# --- looking again -------------------------------------------------------------------------------


def test_a_hold_put_after_the_plan_was_shown_stops_the_run(made: tuple[Repository, Snapshot]) -> None:
    repository, first = made
    nights = nightly(repository, first, range(31, 34))
    planned = plan(repository)
    hold(repository, nights[33].id.hex(), Hold("legal", "case 7", "ann"), CLOCK)  # type: ignore[union-attr]
    with pytest.raises(RefusedError, match="they changed since the plan was made"):
        apply(repository, planned)
    assert len(listed(repository)) == 4


def test_a_last_good_one_that_vanished_after_the_plan_was_shown_stops_the_run(
    made: tuple[Repository, Snapshot],
) -> None:
    repository, first = made
    nights = nightly(repository, first, range(31, 34))
    planned = plan(repository)
    repository.remove(FileKind.SNAPSHOT, first.id or b"")
    with pytest.raises(RefusedError, match="is to be kept now: they changed since"):
        apply(repository, planned)
    assert listed(repository) == ids(nights.values())


def test_a_snapshot_that_came_after_the_plan_was_shown_stops_the_run(
    made: tuple[Repository, Snapshot],
) -> None:
    repository, first = made
    nightly(repository, first, range(31, 34))
    planned = plan(repository)
    received(repository, first, NOW - 5 * DAY)
    with pytest.raises(RefusedError, match="its snapshots are others now"):
        apply(repository, planned)
    assert len(listed(repository)) == 5


def test_only_what_was_shown_goes_although_more_came_due_meanwhile(made: tuple[Repository, Snapshot]) -> None:
    repository, first = made
    nights = nightly(repository, first, range(30, 34))
    shown_earlier = plan(repository, NOW - DAY)
    apply(repository, shown_earlier)
    assert listed(repository) == ids([first, nights[30], nights[31]])


def test_a_running_backup_or_restore_keeps_forgetting_out(made: tuple[Repository, Snapshot]) -> None:
    """pgBackRest #2622, Barman #200: backups and restores hold a shared lock while they run."""
    repository, first = made
    nightly(repository, first, range(31, 34))
    planned = plan(repository)
    with repository.take_lock(CLOCK) as running:
        running.confirm()
        with pytest.raises(LockedError):
            apply(repository, planned)
    assert len(listed(repository)) == 4


def test_a_listing_that_fails_deletes_nothing(made: tuple[Repository, Snapshot], tmp_path: Path) -> None:
    """Safety 6: an error is not 'empty'."""
    repository, first = made
    nightly(repository, first, range(31, 34))
    planned = plan(repository)
    directory = Path(repository.storage.location, "snapshots")
    directory.rename(tmp_path / "elsewhere")
    directory.write_text("not a directory")
    with pytest.raises((StorageError, UnreachableError)):
        apply(repository, planned)
    assert len(list((tmp_path / "elsewhere").iterdir())) == 4


# --- brakes ----------------------------------------------------------------------------------------


def test_a_brake_stops_and_an_override_by_name_with_a_reason_goes_on(
    made: tuple[Repository, Snapshot],
) -> None:
    repository, first = made
    nightly(repository, first, range(31, 40))
    planned = plan(repository)
    with pytest.raises(RefusedError) as caught:
        apply(repository, planned)
    assert caught.value.exit_code == 40
    assert caught.value.message.startswith("mass-deletion: shop/files/web1: 9 of 10 snapshots would go")
    assert "--override mass-deletion=REASON" in (caught.value.hint or "")
    with pytest.raises(RefusedError):
        apply(repository, planned, clock_jump="the wrong name")
    assert len(listed(repository)) == 10
    report = apply(repository, planned, mass_deletion="first run, agreed with ann")
    assert len(report.forgotten) == 9
    assert report.overridden == {BrakeName.MASS_DELETION: "first run, agreed with ann"}


@pytest.mark.parametrize("shift", [-2 * DAY, -timedelta(minutes=20), timedelta(minutes=20), 400 * DAY])
def test_a_clock_that_is_not_the_storages_stops_the_run(
    made: tuple[Repository, Snapshot], shift: timedelta
) -> None:
    """Safety 22, seen by the storage's own clock whatever the age of the snapshots."""
    repository, first = made
    nightly(repository, first, range(1, 40))
    wrong = ShiftedClock(shift)
    with pytest.raises(RefusedError, match="yet the storage's clock says"):
        apply_forget(repository, plan(repository, wrong.now()), wrong, ignore, lambda: None)
    assert len(listed(repository)) == 40


def test_a_service_name_that_matches_nothing_stops_the_run(made: tuple[Repository, Snapshot]) -> None:
    repository, _ = made
    planned = plan_forget(repository, replace(REQUEST, service="shpo"), CLOCK.now())
    assert planned.judgement.going == ()
    with pytest.raises(RefusedError, match="empty-group: no snapshot matches"):
        apply(repository, planned)


def test_a_source_the_plan_promises_and_nobody_backed_up_stops_the_run(
    made: tuple[Repository, Snapshot],
) -> None:
    repository, _ = made
    promised = replace(REQUEST, groups=(Group("shop", "database", "db1"),))
    with pytest.raises(RefusedError, match="shop/database/db1: the plan promises backups and there are none"):
        apply(repository, plan_forget(repository, promised, CLOCK.now()))


def test_an_edited_policy_brakes_for_a_week_and_not_only_until_the_next_backup(
    made: tuple[Repository, Snapshot],
) -> None:
    repository, first = made
    old, new = policy_tag(replace(MONTH, gone_by=90 * DAY), "UTC"), policy_tag(MONTH, "UTC")
    for ago in range(3, 34):
        received(repository, replace(first, tags=(*first.tags, old)), NOW - ago * DAY)
    for ago in range(1, 3):
        received(repository, replace(first, tags=(*first.tags, new)), NOW - ago * DAY)
    engaged = [brake.name for brake in plan(repository).judgement.brakes]
    assert engaged == [BrakeName.EDITED_POLICY]
    in_a_week = plan(repository, NOW + 7 * DAY)
    assert BrakeName.EDITED_POLICY not in [brake.name for brake in in_a_week.judgement.brakes]


# --- garbage ----------------------------------------------------------------------------------------


def test_records_whose_tree_no_index_knows_count_for_nothing(made: tuple[Repository, Snapshot]) -> None:
    """Safety 16: whoever can only write snapshot files pushes nothing out."""
    repository, first = made
    set_receipt(repository, first, NOW - 3 * DAY)
    for number in range(20):
        fake = replace(first, tree=bytes([number]) * 32)
        received(repository, fake, NOW - timedelta(minutes=number))
    request = replace(REQUEST, policy=Retention(last=2))
    judgement = plan_forget(repository, request, CLOCK.now()).judgement
    real = next(verdict for verdict in judgement.verdicts if verdict.snapshot.id == (first.id or b"").hex())
    assert real.reasons[0] == "last good backup"
    assert judgement.going == ()


def test_a_malformed_hold_tag_holds_and_a_malformed_receipt_tag_is_not_believed(
    made: tuple[Repository, Snapshot],
) -> None:
    repository, first = made
    nightly(repository, first, range(31, 33))
    held = received(repository, replace(first, tags=(*first.tags, "drctl.hold=legal;ann")), NOW - 60 * DAY)
    dated = received(repository, replace(first, tags=(*first.tags, "drctl.received=soon")), NOW - DAY)
    verdicts = {verdict.snapshot.id: verdict for verdict in plan(repository).judgement.verdicts}
    assert verdicts[(held.id or b"").hex()].keep
    assert "malformed hold tag" in verdicts[(held.id or b"").hex()].reasons[0]
    assert verdicts[(dated.id or b"").hex()].snapshot.received.timestamp() == pytest.approx(
        (NOW - DAY).timestamp(), abs=1
    )


# --- interrupted ---------------------------------------------------------------------------------------


class Refusing(LocalStorage):
    """Refuses to delete snapshots once some are gone: a disk or an object lock in mid-run."""

    def __init__(self, options: LocalOptions, deletions: int, *, silently: bool = False) -> None:
        super().__init__(options)
        self.deletions = deletions
        self.silently = silently

    def delete(self, key: str) -> None:
        if key.startswith("snapshots/"):
            if self.deletions == 0 and self.silently:
                return
            if self.deletions == 0:
                raise StorageError("refused")
            self.deletions -= 1
        super().delete(key)


@pytest.mark.parametrize("deletions", [0, 1, 2])
def test_a_run_that_stops_midway_leaves_what_restores_and_is_finished_by_the_next(
    tmp_path: Path, deletions: int
) -> None:
    storage: Storage = Refusing(LocalOptions(str(tmp_path / "repository")), deletions)
    repository, first = make_repository(tmp_path, storage)
    nights = nightly(repository, first, range(30, 34))
    with pytest.raises(StorageError, match="refused"):
        apply(repository, plan(repository))
    gone = ids(nights[ago] for ago in range(31, 31 + deletions))
    assert listed(repository) == ids([first, *nights.values()]) - gone
    storage.deletions = 9  # type: ignore[attr-defined]
    apply(repository, plan(repository))
    assert listed(repository) == ids([first, nights[30]])


def test_an_interruption_stops_before_the_next_deletion(made: tuple[Repository, Snapshot]) -> None:
    repository, first = made
    nightly(repository, first, range(31, 34))
    asked = iter([None, InterruptedRunError("interrupted")])

    def stop() -> None:
        error = next(asked)
        if error:
            raise error

    with pytest.raises(InterruptedRunError):
        apply_forget(repository, plan(repository), CLOCK, ignore, stop)
    assert len(listed(repository)) == 3


class Sleeper(SystemClock):
    """A machine that is suspended once, for as long as `slept_s`."""

    slept_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.slept_s


def test_a_lock_lost_in_mid_run_stops_before_the_next_deletion(made: tuple[Repository, Snapshot]) -> None:
    """Safety 11: whoever slept past its lock does nothing more when it wakes."""
    repository, first = made
    nightly(repository, first, range(31, 34))
    clock = Sleeper()

    def sleep_after_the_first(event: Event) -> None:
        if isinstance(event, Progressed):
            clock.slept_s = 3600.0

    with pytest.raises(LockedError, match="the lock on the repository was lost"):
        apply_forget(repository, plan(repository), clock, sleep_after_the_first, lambda: None)
    assert len(listed(repository)) == 3


def test_a_storage_that_only_says_it_deleted_is_found_out(tmp_path: Path) -> None:
    storage = Refusing(LocalOptions(str(tmp_path / "repository")), 1, silently=True)
    repository, first = make_repository(tmp_path, storage)
    nightly(repository, first, range(31, 34))
    with pytest.raises(StorageError, match="2 deleted snapshots are still listed"):
        apply(repository, plan(repository))
