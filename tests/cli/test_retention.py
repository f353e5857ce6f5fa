"""Retention and holds from the command line: shown, braked, confirmed, done."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from drctl.clock import SystemClock
from drctl.repository.repo import Repository
from drctl.repository.snapshot import Snapshot
from drctl.wiring import Wiring, load_plan
from tests.cli.conftest import Completed
from tests.workflow.forget_cases import DAY, NOW, listed, received

Run = Callable[..., Completed]


@dataclass(frozen=True)
class Shop:
    """A plan and a repository with one backup, made by the commands themselves."""

    folder: Path
    drctl: Run
    repository: Repository
    snapshot: Snapshot

    def run(self, *arguments: str) -> Completed:
        return self.drctl(*arguments, cwd=self.folder)

    def lines(self, *arguments: str) -> list[dict[str, object]]:
        done = self.run(*arguments, "--output", "json")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def age(self, *days: int) -> list[Snapshot]:
        return [received(self.repository, self.snapshot, NOW - ago * DAY) for ago in days]


@pytest.fixture
def shop(tmp_path: Path, drctl: Run) -> Shop:
    source = tmp_path / "source"
    source.mkdir()
    (source / "letter").write_text("dear reader")
    made = drctl("init", ".", "--path", str(source), "--service", "shop", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert drctl("backup", "run", cwd=tmp_path).returncode == 0
    plan = tmp_path / "drctl.yaml"
    wiring = Wiring(load_plan(plan, {}), {}, SystemClock())
    repository = wiring.repository(wiring.repository_spec(None))
    (snapshot,) = repository.snapshots()
    return Shop(tmp_path, drctl, repository, snapshot)


def digits(snapshot: Snapshot) -> str:
    assert snapshot.id is not None
    return snapshot.id.hex()[:8]


def test_the_plan_shows_what_is_kept_or_not_why_and_since_when(shop: Shop) -> None:
    (old,) = shop.age(90)
    shop.age(*range(1, 6))
    done = shop.run("retention", "plan")
    assert done.returncode == 0
    rows = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert "last good backup; kept at least 30d" in rows[digits(shop.snapshot)]
    since = (NOW - 90 * DAY + 32 * DAY).date()  # gone by 33 d, a day of which is for purging
    assert f"due since {since}: gone by 33d" in rows[digits(old)]
    assert done.stdout.splitlines()[-1] == "6 kept, 1 to go, 0 brakes"
    assert len(listed(shop.repository)) == 7


def test_the_plan_can_be_asked_what_goes_at_another_time(shop: Shop) -> None:
    assert shop.run("backup", "run").returncode == 0
    now = shop.run("retention", "plan")
    later = shop.run("retention", "plan", "--at", "2100-01-01")
    assert "2 kept, 0 to go" in now.stdout
    assert "1 kept, 1 to go" in later.stdout
    assert len(shop.lines("backup", "list")) == 3  # both, and the summary: nothing was deleted
    assert shop.run("retention", "plan", "--at", "soon").returncode == 2


def test_the_plan_as_json_has_one_object_per_snapshot(shop: Shop) -> None:
    (old,) = shop.age(90)
    *verdicts, summary = shop.lines("retention", "plan")
    assert {line["message_type"] for line in verdicts} == {"verdict"}
    by_id = {str(line["short_id"]): line for line in verdicts}
    assert by_id[digits(old)]["keep"] is False
    due = datetime.fromisoformat(str(by_id[digits(old)]["due_since"]))
    assert abs(due - (NOW - 58 * DAY)) < DAY / 1000
    assert by_id[digits(shop.snapshot)]["due_since"] is None
    assert {name: summary[name] for name in ("kept", "going", "brakes")} == {
        "kept": 1,
        "going": 1,
        "brakes": 0,
    }


def test_apply_shows_and_refuses_without_a_confirmation(shop: Shop) -> None:
    (old,) = shop.age(90)
    done = shop.run("retention", "apply")
    assert done.returncode == 40
    assert digits(old) in done.stdout
    assert "not confirmed: delete 1 snapshots of shop in main" in done.stderr
    assert len(listed(shop.repository)) == 2


def test_apply_deletes_what_it_shows_once_confirmed(shop: Shop) -> None:
    (old,) = shop.age(90)
    done = shop.run("retention", "apply", "--yes")
    assert done.returncode == 0, done.stderr
    assert digits(old) in done.stdout
    assert digits(shop.snapshot) not in done.stdout
    assert done.stdout.splitlines()[-1] == "1 snapshots forgotten"
    assert [one.id for one in shop.repository.snapshots()] == [shop.snapshot.id]
    again = shop.run("retention", "apply", "--yes")
    assert (again.returncode, again.stdout) == (0, "0 snapshots forgotten\n")


def test_a_brake_ends_with_40_even_with_yes_and_an_override_names_it(shop: Shop) -> None:
    shop.age(*range(60, 66))
    planned = shop.run("retention", "plan")
    assert "brake mass-deletion" in planned.stderr
    done = shop.run("retention", "apply", "--yes")
    assert done.returncode == 40
    assert "mass-deletion: shop/files/" in done.stderr
    assert "--override mass-deletion=REASON" in done.stderr
    assert len(listed(shop.repository)) == 7
    done = shop.run("retention", "apply", "--yes", "--override", "mass-deletion=first run")
    assert done.returncode == 0, done.stderr
    assert len(listed(shop.repository)) == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("mass=first run", "no brake 'mass'"),
        ("mass-deletion", "no reason given for overriding mass-deletion"),
        ("mass-deletion= ", "no reason given for overriding mass-deletion"),
    ],
)
def test_an_override_without_a_known_name_and_a_reason_is_a_usage_error(
    shop: Shop, override: str, message: str
) -> None:
    done = shop.run("retention", "apply", "--yes", "--override", override)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_misspelt_service_deletes_nothing(shop: Shop) -> None:
    shop.age(90)
    assert shop.run("retention", "apply", "shpo", "--yes").returncode == 2
    assert len(listed(shop.repository)) == 2


def test_an_edited_policy_brakes_although_a_backup_was_taken_since(shop: Shop) -> None:
    shop.age(*range(30, 34))
    plan = shop.folder / "drctl.yaml"
    shipped = Path(__file__).parents[2] / "policies" / "nightly-30d.yaml"
    (shop.folder / "policies").mkdir(exist_ok=True)
    edited = shipped.read_text().replace("floor: 1", "floor: 2")
    assert edited != shipped.read_text()
    (shop.folder / "policies" / "nightly-30d.yaml").write_text(edited)
    assert plan.exists()
    assert shop.run("backup", "run").returncode == 0
    done = shop.run("retention", "apply", "--yes")
    assert done.returncode == 40
    assert "edited-policy: the policy is not the one last applied" in done.stderr


# --- holds ---------------------------------------------------------------------------------------


def test_a_held_snapshot_stays_until_it_is_released(shop: Shop) -> None:
    (old,) = shop.age(90)
    words = ("--name", "legal", "--reason", "case 7", "--owner", "ann")
    done = shop.run("snapshot", "hold", digits(old), *words, "--for", "90d")
    assert done.returncode == 0, done.stderr
    assert "held by legal (ann): case 7, until " in done.stdout
    assert shop.run("retention", "apply", "--yes").returncode == 0
    assert len(listed(shop.repository)) == 2
    done = shop.run("snapshot", "release", digits(old), "--name", "legal")
    assert done.returncode == 0, done.stderr
    assert shop.run("retention", "apply", "--yes").returncode == 0
    assert [one.id for one in shop.repository.snapshots()] == [shop.snapshot.id]


def test_a_hold_until_a_date_lasts_that_day_in_the_plans_zone(shop: Shop) -> None:
    plan = shop.folder / "drctl.yaml"
    lines = [
        "time_zone: Europe/Berlin" if line.startswith("time_zone:") else line
        for line in plan.read_text().splitlines()
    ]
    plan.write_text("\n".join(lines))
    done = shop.run(
        "snapshot", "hold", digits(shop.snapshot), "--name", "n", "--reason", "r", "--until", "2099-06-30"
    )
    assert done.returncode == 0, done.stderr
    (held,) = shop.repository.snapshots()
    assert held.holds[0].expires == datetime(2099, 6, 30, 22, tzinfo=UTC)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "how long is it held?"),
        (("--for", "9d", "--until-released"), "how long is it held?"),
        (("--until", "soon"), "not a date or an instant: 'soon'"),
        (("--until", "2020-01-01"), "hold 'n' is over already"),
        (("--for", "9m"), "not a duration: '9m'"),
    ],
)
def test_a_hold_without_a_plain_expiry_is_a_usage_error(
    shop: Shop, words: tuple[str, ...], message: str
) -> None:
    done = shop.run("snapshot", "hold", digits(shop.snapshot), "--name", "n", "--reason", "r", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert [one.id for one in shop.repository.snapshots()] == [shop.snapshot.id]
