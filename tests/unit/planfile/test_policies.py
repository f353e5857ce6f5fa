"""Shipped policies can be kept, and a policy that cannot is refused."""

# ruff: noqa: E501 - tables of cases read best with one case a line

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from drctl.domain.plan import DisasterClass, Policy
from drctl.domain.units import parse_duration
from drctl.errors import UsageError
from drctl.planfile.cron import check_cron
from drctl.planfile.errors import Problems
from drctl.planfile.lint import full_interval, recovery_point_gap
from drctl.planfile.read import read_policy
from drctl.planfile.shipped import Kind, find_by_name
from tests.unit.planfile.plans import GOOD, read

ZONE = "Europe/Stockholm"
SHIPPED = ("incremental-90d", "nightly-30d", "standby-31d")


def policy(name: str, zone: str = ZONE) -> Policy:
    problems = Problems()
    made = read_policy(name, find_by_name("policies", "/nonexistent")[name], {}, zone, problems)
    problems.raise_if_any()
    assert made is not None
    return made


def refusals(folder: Path, text: str, zone: str = ZONE) -> list[str]:
    (folder / "p.yaml").write_text(text)
    problems = Problems()
    read_policy("p", str(folder / "p.yaml"), {}, zone, problems)
    return (
        [line.removeprefix(f"{folder}/") for line in problems.error().message.splitlines()]
        if problems
        else []
    )


def test_the_shipped_policies_are_the_documented_ones() -> None:
    assert tuple(sorted(find_by_name("policies", "/nonexistent"))) == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("zone", ["UTC", ZONE, "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"])
def test_every_shipped_policy_can_be_kept_in_any_time_zone(name: str, zone: str) -> None:
    made = policy(name, zone)
    kept = made.retention
    assert kept.keep_at_least is not None
    assert kept.gone_by is not None
    assert kept.gone_by >= kept.keep_at_least + full_interval(made.schedule, zone) + kept.purge_lag
    for objective in made.objectives.values():
        assert objective.rpo is None or objective.rpo > recovery_point_gap(made.schedule, zone)
    assert made.restore_test is not None
    assert set(made.objectives) == set(DisasterClass), "a class without a target says so"


@pytest.mark.parametrize("name", SHIPPED)
def test_a_plan_that_names_a_shipped_policy_is_accepted(tmp_path: Path, name: str) -> None:
    assert read(tmp_path, GOOD.replace("nightly-30d", name)).services["docs"].policy == name


def test_the_shipped_numbers_are_the_promised_ones() -> None:
    nightly, incremental, standby = policy("nightly-30d"), policy("incremental-90d"), policy("standby-31d")
    assert nightly.retention.keep_at_least == timedelta(days=30)
    assert nightly.objectives[DisasterClass.SERVER].rto == timedelta(minutes=15)
    assert nightly.schedule.continuous is not None
    server, site = (incremental.objectives[c] for c in (DisasterClass.SERVER, DisasterClass.SITE))
    assert incremental.retention.keep_at_least == timedelta(days=90)
    assert (server.rpo, server.max_loss, server.rto) == tuple(timedelta(minutes=m) for m in (60, 120, 240))
    assert server.excluded_phases == ("promotion", "dns-propagation")
    assert (site.rpo, site.rto) == (timedelta(hours=24), timedelta(hours=48))
    assert incremental.objectives[DisasterClass.LOGICAL].rpo is None, "corrupt data is not covered"
    assert standby.retention.gone_by == timedelta(days=31), "at most one month"
    assert standby.retention.keep_at_least == timedelta(days=30), "a request on day 30 works"
    assert standby.objectives[DisasterClass.SERVER].rto == timedelta(hours=1)


def test_one_full_a_day_cannot_keep_30_days_and_be_gone_after_31(tmp_path: Path) -> None:
    with open(find_by_name("policies", "/nonexistent")["standby-31d"]) as file:
        text = file.read()
    (line,) = refusals(tmp_path, text.replace("30 0,12 * * *", "30 1 * * *"))
    assert "gone_by 31d is less than keep_at_least 30d + full interval 1d 1h + purge_lag 6h = 31d 7h" in line
    assert line.endswith("raise gone_by, keep less, or make fulls more often)")
    assert not refusals(
        tmp_path,
        text.replace("30 0,12 * * *", "30 1 * * *").replace("keep_at_least: 30d\n", "keep_at_least: 29d\n"),
    )


PARTS = 'schedule: {full: "0 3 * * *"}\nretention: {keep_at_least: 30d, gone_by: %s, purge_lag: 1d}\n'


@pytest.mark.parametrize(
    ("gone_by", "zone", "accepted"),
    [("32d", ZONE, False), ("32d 59min", ZONE, False), ("32d 1h", ZONE, True), ("32d", "UTC", True),
     ("31d 23h", "UTC", False)],
)  # fmt: skip
def test_gone_by_counts_the_oldest_full_the_25_hour_day_and_the_purge(
    tmp_path: Path, gone_by: str, zone: str, accepted: bool
) -> None:
    lines = refusals(tmp_path, PARTS % gone_by, zone)
    assert (not lines) == accepted
    assert accepted or lines[0].startswith("p.yaml:2:42: gone_by")


BAD_POLICIES = [
    ("schedule: {}\nretention: {last: 1}", "1:1: nothing is scheduled"),
    ("schedule: {continuous: 5min}\nretention: {last: 1}", "1:1: nothing is scheduled"),
    ('schedule: {full: "0 3 * * *"}\nretention: {}', "2:1: retention keeps nothing"),
    ('schedule: {full: "0 3 * * *"}\nretention:', "2:1: retention keeps nothing"),
    ('schedule: {full: "0 3 * * *"}\nretention: {last: 1, floor: 0}', "2:29: must be at least 1"),
    ('schedule: {full: "0 3 * * *"}\nretention: {last: 1, brake_fraction: 0}', "2:38: must be more than 0"),
    ('schedule: {full: "0 3 * * *"}\nretention: {last: 1, brake_fraction: 1.01}', "2:38: must be at most 1"),
    ('schedule: {full: "0 3 * * *"}\nretention: {last: 1, brake_fraction: -0.5}', "2:38: must be more than 0"),
    ('schedule: {full: "0 3 * * *"}\nretention: {last: -1}', "2:19: must be at least 0"),
    ('schedule: {full: "0 3 * * *"}\nretention: {last: 1, keep_at_least: 0d}', "2:37: a duration of nothing"),
    ('schedule: {full: "0 3 * * *"}\nretention: {last: 1, keep_at_least: 30}', "2:37: must be a duration"),
    ('schedule: {full: "0 3 * * *"}\nretention: {within: 9d, gone_by: 8d}', "2:21: within is more than gone_by"),
    ('schedule: {full: "0 3 * * *"}\nretention: {daily: 7, gone_by: 1d}', "2:32: gone_by 1d is less than"),
    ('schedule: {full: "0 3 * *"}\nretention: {last: 1}', "1:18: a cron expression has five fields, not 4"),
    ("schedule: {full: 22:30}\nretention: {last: 1}", "1:18: unquoted 22:30 would be read as a number"),
    ('schedule: {full: "0 0 30 2 *"}\nretention: {last: 1}', "1:18: not a cron expression"),
    ('schedule: {full: "@reboot"}\nretention: {last: 1}', "1:18: a cron expression has five fields, not 1"),
]  # fmt: skip
OBJECTIVES = 'schedule: {full: "0 3 * * *"}\nretention: {last: 1}\nobjectives:\n  server: '


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *BAD_POLICIES,
        (OBJECTIVES + "{rpo: 24h}", "4:17: an RPO of 1d cannot be met: recovery points can be 1d 1h apart"),
        (OBJECTIVES + "{rpo: 25h}", "4:17: an RPO of 1d 1h cannot be met"),
        (OBJECTIVES + "{rpo: 26h, max_loss: 25h}", "4:32: max_loss is less than the RPO"),
        (OBJECTIVES + "{excluded_phases: [dns]}", "4:30: unknown phase 'dns' (known: approval,"),
        (OBJECTIVES + "{rto: never}", "4:17: not a duration: 'never'"),
    ],
)
def test_a_policy_that_cannot_be_kept_is_refused(tmp_path: Path, text: str, message: str) -> None:
    lines = refusals(tmp_path, text)
    assert any(line.startswith(f"p.yaml:{message}") for line in lines), lines


@pytest.mark.parametrize("good", [OBJECTIVES + "{rpo: 26h, max_loss: 26h}", OBJECTIVES + "{}", OBJECTIVES])
def test_a_policy_that_can_be_kept_is_accepted(tmp_path: Path, good: str) -> None:
    assert not refusals(tmp_path, good)


@pytest.mark.parametrize(
    "bad",
    ["", "* * * *", "* * * * * *", "61 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "R 1 * * *",
     "H 1 * * *", "0 0 31 2 *", "*/0 * * * *", "a b c d e", "0 0 * foo *", "1,,2 * * * *", "- * * * *", "0 0 LL * *",
     "9" * 300 + " * * * *", "\0 * * * *"],
)  # fmt: skip
def test_what_is_no_plain_cron_expression_is_refused(bad: str) -> None:
    with pytest.raises(UsageError):
        check_cron(bad)


@pytest.mark.parametrize(
    "good", ["* * * * *", "*/5 8-17 * * mon-fri", "0 0 L * *", "0 0 29 2 *", "0 0 1 JAN,jul *"]
)
def test_a_plain_cron_expression_is_accepted_with_single_blanks(good: str) -> None:
    assert check_cron("  " + good.replace(" ", "   ")) == good


def test_names_are_found_in_a_wheel_and_in_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "drctl"
    (package / "shipped" / "policies").mkdir(parents=True)
    (package / "shipped" / "policies" / "installed.yaml").touch()
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "checkout.yaml").touch()
    monkeypatch.setattr("importlib.resources.files", lambda _: package)
    assert list(find_by_name("policies", "/nonexistent")) == ["installed"]
    os.rename(package / "shipped", package / "elsewhere")
    assert list(find_by_name("policies", "/nonexistent")) == ["checkout"]


def test_a_plans_own_playbook_and_policy_folders_win(tmp_path: Path) -> None:
    kinds: tuple[Kind, ...] = ("policies", "playbooks")
    for kind in kinds:
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "nightly-30d.yaml").touch()
        (tmp_path / kind / ".hidden.yaml").touch()
        (tmp_path / kind / "README.md").touch()
        found = find_by_name(kind, str(tmp_path))
        assert found["nightly-30d"] == str(tmp_path / kind / "nightly-30d.yaml")
        assert not {".hidden", "README"} & set(found)
    (tmp_path / "policies" / "a.yaml").touch()
    assert list(read(tmp_path, GOOD.replace("nightly-30d", "standby-31d")).playbooks) == ["nightly-30d"]


def test_every_duration_in_a_shipped_policy_is_exact() -> None:
    for name in SHIPPED:
        with open(find_by_name("policies", "/nonexistent")[name]) as file:
            data = yaml.safe_load(file)
        for key in ("keep_at_least", "gone_by", "purge_lag"):
            assert parse_duration(data["retention"][key]) > timedelta()
