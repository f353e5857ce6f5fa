"""`drctl plan validate`, `show` and `schema`, run as a user runs them, with the real kinds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
import yaml

from drctl.errors import ExitCode
from tests.cli.conftest import Completed

Run = Callable[..., Completed]
GOLDEN = Path(__file__).parent / "golden"
PLAN = """\
organisation: Example AB
time_zone: Europe/Stockholm
calendar: sweden
sites:
  here: {description: The cellar}
  there: {description: A rented room, region: eu-north-1}
hosts:
  web1: {site: here}
  db1: {site: there, address: db1.example.net, user: backup, known_hosts: /etc/drctl/known_hosts}
repositories:
  main:
    site: here
    storage: {kind: local, path: /var/lib/drctl/repository}
    key: {file: /etc/drctl/main.key}
  copy:
    site: there
    storage: {kind: local, path: /mnt/there/repository}
    key: {command: [pass, drctl/copy]}
    upload_limit: 10MB
services:
  docs:
    policy: nightly-30d
    owner: Jane Doe
    repositories: [main, copy]
    sources:
      files: {kind: files, paths: [/usr/share/doc], exclude: ["*.tmp"], one_file_system: true}
  shop:
    policy: incremental-90d
    tenant: acme
    repositories: [main]
    objectives: {server: {rpo: 90min, rto: 2h, excluded_phases: [detection]}}
    sources:
      dump: {kind: command, command: [pg_dump, shop], filename: shop.sql, timeout: 2h}
      pages: {kind: files, host: db1, paths: [/srv/shop]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "drctl.yaml").write_text(PLAN)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "arguments"), [("plan_show.txt", ()), ("plan_show.jsonl", ("--output", "json"))]
)
def test_plan_show_prints_the_resolved_plan(
    drctl: Run, folder: Path, name: str, arguments: tuple[str, ...]
) -> None:
    done = drctl("plan", "show", *arguments, cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    shown = done.stdout.replace(str(folder), "/etc/drctl")
    assert shown == (GOLDEN / name).read_text(), (
        "if the change is meant, copy what is shown into the golden file"
    )


def test_plan_validate_says_what_it_found(drctl: Run, folder: Path) -> None:
    done = drctl("plan", "validate", cwd=folder)
    assert done.returncode == 0
    assert done.stdout == f"{folder}/drctl.yaml is valid: 2 services, 3 sources, 2 repositories, 2 policies\n"


def test_plan_validate_tells_every_problem_on_a_line_of_its_own(drctl: Run, folder: Path) -> None:
    (folder / "drctl.yaml").write_text(
        PLAN.replace("[main]", "[mian]").replace("kind: command", "kind: comand")
    )
    done = drctl("plan", "validate", cwd=folder)
    assert done.returncode == ExitCode.USAGE
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "drctl.yaml:30:20: no repository 'mian' in the plan (did you mean 'main'?)",
        "drctl.yaml:33:20: unknown kind 'comand' (did you mean 'command'?)",
        "drctl: error: 2 problems",
    ]


def test_plan_problems_are_objects_for_programs(drctl: Run, folder: Path) -> None:
    (folder / "drctl.yaml").write_text(PLAN.replace("[main]", "[mian]"))
    done = drctl("plan", "validate", "--output", "json", cwd=folder)
    error = json.loads(done.stdout.splitlines()[-1])
    assert (error["message_type"], error["exit_code"]) == ("error", 2)
    assert error["problems"] == [
        {
            "file": "drctl.yaml",
            "line": 30,
            "column": 20,
            "message": "no repository 'mian' in the plan",
            "hint": "did you mean 'main'?",
        }
    ]


def test_the_environment_fills_the_plan(drctl: Run, folder: Path) -> None:
    (folder / "drctl.yaml").write_text(PLAN.replace("Example AB", "${ORGANISATION}"))
    assert "ORGANISATION is not set" in drctl("plan", "show", cwd=folder).stderr
    assert "Organisation  Other AB\n" in drctl("plan", "show", cwd=folder, ORGANISATION="Other AB").stdout


@pytest.mark.parametrize("what", ["plan", "policy"])
def test_plan_schema_prints_a_schema_that_the_real_files_satisfy(drctl: Run, folder: Path, what: str) -> None:
    schema = json.loads(drctl("plan", "schema", "--of", what).stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    policies = sorted((Path(__file__).parents[2] / "policies").glob("*.yaml"))
    for document in [PLAN] if what == "plan" else [file.read_text() for file in policies]:
        jsonschema.validate(yaml.safe_load(document), schema, jsonschema.Draft202012Validator)
    as_lines = drctl("plan", "schema", "--of", what, "--output", "json").stdout.splitlines()
    assert json.loads(as_lines[0])["schema"] == schema


def test_the_schema_knows_every_kind_there_is(drctl: Run) -> None:
    from drctl.wiring import source_options, storage_options

    text = drctl("plan", "schema").stdout
    for kind in (*source_options(), *storage_options()):
        assert f'"const": "{kind}"' in text


def test_a_hostile_plan_cannot_reach_the_terminal(drctl: Run, folder: Path) -> None:
    (folder / "drctl.yaml").write_text(
        PLAN.replace("Example AB", r'"\e[2Jx\u202e"').replace("[main]", r'["\e[2J\n"]')
    )
    done = drctl("plan", "validate", cwd=folder)
    assert "\x1b" not in done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1
