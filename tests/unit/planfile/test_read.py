"""A plan is read whole, or every problem in it is told at once with its place."""

# ruff: noqa: E501 - tables of cases read best with one case a line

from __future__ import annotations

import os
import pickle
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drctl.domain.plan import Chunker, Contact, DisasterClass, Host, Objective, SecretReference
from drctl.errors import ExitCode
from drctl.planfile.errors import PlanError, Problem
from tests.unit.planfile.plans import (
    GOOD,
    CommandOptions,
    FilesOptions,
    LocalOptions,
    S3Options,
    problems,
    read,
)

FILES = '{kind: files, paths: [/usr/share/doc], exclude: ["*.tmp"]}'
LOCAL = "{kind: local, path: /var/lib/drctl/repository}"
KEY = "{file: /etc/drctl/main.key}"


def test_a_good_plan_becomes_frozen_values(tmp_path: Path) -> None:
    plan = read(tmp_path, GOOD)
    assert (plan.organisation, plan.time_zone) == ("Example AB", "Europe/Stockholm")
    assert plan.hosts["web1"] == Host(name="web1", site="here")
    repository = plan.repositories["main"]
    assert repository.storage.options == LocalOptions(path="/var/lib/drctl/repository")
    assert repository.key == SecretReference(file="/etc/drctl/main.key")
    source = plan.services["docs"].sources["files"]
    assert source.host == "web1", "the one host without an address is this machine"
    assert source.options == FilesOptions(paths=("/usr/share/doc",), exclude=("*.tmp",))
    assert plan.policies["nightly-30d"].retention.keep_at_least == timedelta(days=30)
    assert plan.file == str(tmp_path / "drctl.yaml")


def test_everything_a_plan_can_say_is_understood(tmp_path: Path) -> None:
    text = """\
organisation: "${ORG:-Example} AB"
time_zone: America/New_York
calendar: sweden
contacts: [{name: Jane, email: jane@example.net, phone: "+46 8 123 45 67"}]
sites: {here: {region: eu-north-1}, there: {}}
hosts:
  db1:
    site: there
    address: db1.example.net
    port: ${PORT:-2222}
    user: backup
    identity_file: ${HOME}/.ssh/id
    known_hosts: /etc/drctl/known_hosts
repositories:
  far:
    site: there
    storage: {kind: s3, bucket: b, secret_key: {command: [pass, s3]}, lock: {days: 7}, part_size: 16MiB}
    key: {credential: main}
    chunker: restic
    compression: "off"
    append_only: true
    upload_limit: 10MB
    connections: 8
    retry_for: 0s
services:
  shop:
    policy: incremental-90d
    owner: Jane
    tenant: acme
    contacts: [{name: Bo}]
    repositories: [far]
    objectives: {server: {rpo: 2h, rto: 1h, excluded_phases: [detection]}}
    sources:
      dump: {kind: command, host: db1, command: [pg_dump, shop], timeout: 2h}
"""
    plan = read(tmp_path, text, {"HOME": "/home/x"})
    assert plan.organisation == "Example AB"
    assert plan.contacts == (Contact("Jane", "jane@example.net", "+46 8 123 45 67"),)
    assert plan.hosts["db1"].port == 2222
    assert plan.hosts["db1"].identity_file == "/home/x/.ssh/id"
    far = plan.repositories["far"]
    assert isinstance(far.storage.options, S3Options)
    assert far.storage.options.secret_key == SecretReference(command=("pass", "s3"))
    assert far.storage.options.lock is not None
    assert (far.storage.options.lock.days, far.storage.options.part_size) == (7, 16 << 20)
    assert (far.chunker, far.upload_limit_bytes_s, far.retry_for) == (Chunker.RESTIC, 10_000_000, timedelta())
    shop = plan.services["shop"]
    assert shop.sources["dump"].options == CommandOptions(("pg_dump", "shop"), timedelta(hours=2))
    assert shop.objectives == {
        DisasterClass.SERVER: Objective(timedelta(hours=2), None, timedelta(hours=1), ("detection",))
    }


# what stands in GOOD, what stands there instead, the place, the message with its hint
BAD_PLANS = [
    ("organisation:", "organization:", "1:1", "unknown key 'organization' (did you mean 'organisation'?)"),
    ("Example AB", "5", "1:15", 'must be text (quote it: "5")'),
    ("Example AB", "", "1:1", "has no value (give one, or remove the line)"),
    ("Example AB", '""', "1:15", "must not be empty"),
    ("Stockholm", "Stokholm", "2:12", "unknown time zone 'Europe/Stokholm' (did you mean 'Europe/Stockholm'?)"),
    ("Europe/Stockholm", "../../etc/passwd", "2:12", "unknown time zone '../../etc/passwd' (use an IANA name"),
    ("here: {d", "h ere: {d", "4:3", "'h ere' is not a name"),
    ("{site: here}", "{site: her}", "6:16", "no site 'her' in the plan (did you mean 'here'?)"),
    ("{site: here}", "{site: here, adress: x}", "6:22", "unknown key 'adress' (did you mean 'address'?)"),
    ("{site: here}", "{site: here, port: 22}", "6:22", "'port' without an address (add address:"),
    ("{site: here}", "{site: here, address: x, port: 70000}", "6:40", "must be at most 65535"),
    ("{site: here}", '{site: here, address: x, port: "22"}', "6:40", "must be a whole number (remove the quotes)"),
    ("{site: here}", "{site: here, address: -oProxyCommand=id}", "6:31", "not a usable address"),
    ("{site: here}", "{site: here, address: x, user: '-l'}", "6:40", "not a usable user"),
    ("{site: here}", "[here]", "6:9", "must be a mapping"),
    ("web1: {site: here}", "web1:", "6:3", "missing key 'site' (One of the plan's sites.)"),
    ("kind: local", "kind: locla", "10:21", "unknown kind 'locla' (did you mean 'local'?)"),
    ("kind: local, ", "", "10:5", "missing key 'kind' (known: local, s3, sftp)"),
    ("path: /var", "pth: /var", "10:28", "unknown key 'pth' (did you mean 'path'?)"),
    (LOCAL, "{kind: s3, bucket: b, lock: {dys: 3}}", "10:43", "unknown key 'dys' (did you mean 'days'?)"),
    (LOCAL, "{kind: s3, bucket: b, part_size: 5}", "10:47", "must be a size (for example 512KiB, 10MiB or 1.5GB)"),
    (LOCAL, "{kind: sftp, path: /x, host: web2}", "10:43", "no host 'web2' in the plan (did you mean 'web1'?)"),
    (LOCAL, "{kind: sftp, path: x}", "10:14", "not absolute: 'x'"),
    (KEY, "{fil: /k}", "11:11", "unknown key 'fil' (did you mean 'file'?)"),
    (KEY, "{file: main.key}", "11:17", "not an absolute path (begin with '/', or with ${HOME}/)"),
    (KEY, "{}", "11:10", "a secret comes from exactly one place"),
    (KEY, "{file: /k, environment: K}", "11:10", "a secret comes from exactly one place"),
    ("nightly-30d", "nightly", "14:13", "no policy 'nightly' in the plan (did you mean 'nightly-30d'?)"),
    ("[main]", "[mian]", "15:20", "no repository 'mian' in the plan (did you mean 'main'?)"),
    ("[main]", "[main, main]", "15:26", "'main' is listed twice (remove one)"),
    ("[main]", "main", "15:19", "must be a list (write [a, b], or lines that begin with '- ')"),
    ("[main]", "[]", "15:19", "must not be empty"),
    (FILES, '{kind: files, paths: [1]}', "17:36", 'must be text (quote it: "1")'),
    (FILES, '{kind: files, paths: [/x], one_file_system: "true"}', "17:58", "must be true or false (remove the quotes)"),
    (FILES, "{kind: files, paths: [/x], host: wbe1}", "17:47", "no host 'wbe1' in the plan (did you mean 'web1'?)"),
    (FILES, "{kind: command, command: []}", "17:14", "an empty command (write command: [pg_dump, shop])"),
    (FILES, "{kind: command, command: 1}", "17:39", "must be a list"),
    (FILES, "{kind: command}", "17:7", "missing key 'command'"),
    (FILES, "{kind: command, command: [x], timeout: 1m}", "17:53", "not a duration: '1m' (write for example 30d"),
    (FILES, "", "17:7", "missing key 'kind' (known: command, files)"),
    ("sources:\n      files: " + FILES, "sources: {}", "16:14", "must not be empty"),
    ("docs:", "docs:\n    objectives: {servr: {}}", "14:18", "unknown value 'servr' (did you mean 'server'?)"),
    ("docs:", "docs:\n    objectives: {server: {excluded_phases: [promotoin]}}", "14:45",
     "unknown phase 'promotoin' (did you mean 'promotion'?)"),
    ("docs:", "docs:\n    objectives: {server: {rpo: 10min}}", "14:32",
     "an RPO of 10min cannot be met: recovery points can be 15min apart, and a run takes time"),
    ("docs:", "docs:\n    contacts: [{name: A, email: nobody}]", "14:33", "not a usable email"),
]  # fmt: skip


@pytest.mark.parametrize(("good", "bad", "place", "message"), BAD_PLANS)
def test_what_is_wrong_in_the_plan_is_told_with_its_place_and_a_hint(
    tmp_path: Path, good: str, bad: str, place: str, message: str
) -> None:
    assert good in GOOD
    lines = problems(tmp_path, GOOD.replace(good, bad, 1))
    assert any(line.startswith(f"drctl.yaml:{place}: {message}") for line in lines), lines


@pytest.mark.parametrize("key", ["organisation", "time_zone", "sites", "hosts", "repositories", "services"])
def test_every_required_section_that_is_missing_is_told(tmp_path: Path, key: str) -> None:
    data = yaml.safe_load(GOOD)
    del data[key]
    (line, *_) = problems(tmp_path, yaml.safe_dump(data, sort_keys=False))
    assert line.startswith(f"drctl.yaml:1:1: missing key '{key}'")


def test_ten_problems_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """\
organisation: no
time_zone: Europe/Stokholm
sites: {here: {descripton: x}}
hosts:
  web1: {site: her, site: here}
repositories:
  main:
    site: here
    storage: {kind: locl, path: /x}
    key: hunter2
services:
  docs:
    policy: nightly
    repositories: [mian]
    sources:
      files: {kind: files, paths: /x, exclud: []}
      dump: {kind: command, host: db, command: [x], timeout: 3}
"""
    assert [line.split(" (")[0] for line in problems(tmp_path, text)] == [
        "drctl.yaml:1:15: unquoted no would be read as yes or no",
        "drctl.yaml:2:12: unknown time zone 'Europe/Stokholm'",
        "drctl.yaml:3:16: unknown key 'descripton'",
        "drctl.yaml:5:16: no site 'her' in the plan",
        "drctl.yaml:5:21: duplicate key 'site'",
        "drctl.yaml:9:21: unknown kind 'locl'",
        "drctl.yaml:10:10: a secret must not stand in the plan",
        "drctl.yaml:13:13: no policy 'nightly' in the plan",
        "drctl.yaml:14:20: no repository 'mian' in the plan",
        "drctl.yaml:16:35: must be a list",
        "drctl.yaml:16:39: unknown key 'exclud'",
        "drctl.yaml:17:35: no host 'db' in the plan",
        "drctl.yaml:17:62: must be a duration",
    ]


def test_several_missing_keys_of_one_block_are_all_told(tmp_path: Path) -> None:
    lines = problems(tmp_path, "calendar: sweden\n")
    assert [line.split("'")[1] for line in lines] == [
        "organisation", "time_zone", "sites", "hosts", "repositories", "services",
    ]  # fmt: skip


def test_a_plan_error_is_a_usage_error_and_survives_a_process_border(tmp_path: Path) -> None:
    with pytest.raises(PlanError) as caught:
        read(tmp_path, GOOD.replace("[main]", "[mian]"))
    assert caught.value.exit_code is ExitCode.USAGE
    copied = pickle.loads(pickle.dumps(caught.value))
    assert copied.problems == caught.value.problems
    assert copied.problems == (
        Problem(
            str(tmp_path / "drctl.yaml"), 15, 20, "no repository 'mian' in the plan", "did you mean 'main'?"
        ),
    )


@pytest.mark.parametrize(
    "literal",
    ["hunter2", '"hunter2"', "[hunter2]", "${PASSWORD}", "{password: hunter2}", "{secret: hunter2}"],
)
def test_a_secret_in_the_plan_is_refused_and_never_repeated(tmp_path: Path, literal: str) -> None:
    block = f"\n      kind: s3\n      bucket: b\n      secret_key: {literal}"
    for good, bad in ((KEY, literal), (LOCAL, block)):
        lines = problems(tmp_path, GOOD.replace(good, bad), {"PASSWORD": "hunter2"})
        assert lines, "it must be refused"
        assert "hunter2" not in "".join(lines)


def test_a_value_from_the_environment_is_never_shown(tmp_path: Path) -> None:
    environment = {"SECRET": "hunter2 hunter2"}
    for good in (
        "Europe/Stockholm",
        "nightly-30d",
        "/usr/share/doc",
        "here: {d",
        "web1: {site: here}",
        "kind: local",
    ):
        bad = (
            good.split(":")[0].replace("here", "'${SECRET}'")
            if ":" in good and "kind" not in good
            else "${SECRET}"
        )
        text = GOOD.replace(good, f"kind: '{bad}'" if "kind" in good else f'"{bad}"', 1)
        assert "hunter2" not in "".join(problems(tmp_path, text, environment))
    text = GOOD.replace(
        "docs:", 'docs:\n    objectives: {server: {rpo: "${SECRET}", excluded_phases: ["${SECRET}"]}}'
    )
    lines = problems(tmp_path, text, environment)
    assert len(lines) == 2
    assert "hunter2" not in "".join(lines)
    assert "${SECRET}" in lines[0]
    text = GOOD.replace(LOCAL, '{kind: sftp, path: "${SECRET}"}')
    assert "not absolute: '${SECRET}'" in problems(tmp_path, text, environment)[0]


def test_control_characters_and_line_breaks_of_a_value_stay_on_one_line(tmp_path: Path) -> None:
    (line,) = problems(tmp_path, GOOD.replace("[main]", r'["main\n\e[31mx"]'))
    assert r"'main\n\x1b[31mx'" in line


def test_with_two_hosts_that_could_be_this_machine_a_source_names_its_host(tmp_path: Path) -> None:
    two = GOOD.replace("web1: {site: here}", "web1: {site: here}\n  web2: {site: here}")
    assert problems(tmp_path, two)[0].startswith("drctl.yaml:18:7: the source 'files' needs a host (")
    named = two.replace("kind: files", "kind: files, host: web2")
    assert read(tmp_path, named).services["docs"].sources["files"].host == "web2"


def test_a_hostile_name_in_a_hint_stays_on_its_line(tmp_path: Path) -> None:
    hostile = GOOD.replace("web1:", r'"we\nb\e[2J":').replace("kind: files", "kind: files, host: x")
    assert all("known: " not in line or r"we\nb\x1b[2J" in line for line in problems(tmp_path, hostile))
    assert all(line.isprintable() for line in problems(tmp_path, hostile))


# --- includes ---------------------------------------------------------------------------


def included(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


SERVICE = """\
services:
  wiki:
    policy: nightly-30d
    repositories: [main]
    sources: {files: {kind: files, paths: [/srv/wiki]}}
"""


def test_included_files_are_merged_and_keep_their_places(tmp_path: Path) -> None:
    included(tmp_path, "services/a.yaml", SERVICE)
    included(tmp_path, "services/b.yaml", SERVICE.replace("wiki", "wiki2").replace("[main]", "[mian]"))
    text = "include: [services/*.yaml]\n" + GOOD
    assert problems(tmp_path, text) == [
        "services/b.yaml:4:20: no repository 'mian' in the plan (did you mean 'main'?)"
    ]
    included(tmp_path, "services/b.yaml", SERVICE.replace("wiki", "wiki2"))
    assert list(read(tmp_path, text).services) == ["docs", "wiki", "wiki2"]


def test_an_include_is_relative_to_the_file_that_holds_it(tmp_path: Path) -> None:
    included(tmp_path, "a/b.yaml", "include: c.yaml\n")
    included(tmp_path, "a/c.yaml", SERVICE)
    assert list(read(tmp_path, "include: a/b.yaml\n" + GOOD).services) == ["docs", "wiki"]


def test_a_name_defined_in_two_files_is_told_with_both_places(tmp_path: Path) -> None:
    included(tmp_path, "a.yaml", SERVICE.replace("wiki", "docs") + "time_zone: UTC\n")
    lines = problems(tmp_path, "include: [a.yaml]\n" + GOOD)
    assert [line.replace(f"{tmp_path}/", "") for line in lines] == [
        "a.yaml:2:3: 'docs' is already defined at drctl.yaml:14:3 (rename one of the two)",
        "a.yaml:6:1: 'time_zone' is already given at drctl.yaml:3:1 (keep one of the two)",
    ]


BAD_INCLUDES = [
    ("../x.yaml", "leaves the plan's folder"),
    ("/etc/passwd", "leaves the plan's folder"),
    ("a/../../x.yaml", "leaves the plan's folder"),
    ("nothing.yaml", "no file"),
    ("nothing/*.yaml", "no file matches"),
    ("drctl.yaml", "includes itself"),
    ("loop1.yaml", "includes itself"),
    ("outside.yaml", "leaves the plan's folder through a symbolic link"),
    ("out*.yaml", "leaves the plan's folder through a symbolic link"),
    ("folder", "no file"),
    ("fifo", "no file"),
    ('"a\\0b"', "leaves the plan's folder"),
    ("[a.yaml, a.yaml]", "is included twice"),
    ("[5]", "not a file name"),
    ("{a: b}", "not a file name"),
]  # fmt: skip


@pytest.mark.parametrize(("include", "message"), BAD_INCLUDES)
def test_an_include_that_could_surprise_is_refused(tmp_path: Path, include: str, message: str) -> None:
    (tmp_path / "outside.txt").write_text(SERVICE)
    folder = tmp_path / "plan"
    included(folder, "a.yaml", SERVICE)
    included(folder, "loop1.yaml", "include: loop2.yaml\n")
    included(folder, "loop2.yaml", "include: loop1.yaml\n")
    (folder / "folder").mkdir()
    os.mkfifo(folder / "fifo")
    (folder / "outside.yaml").symlink_to(tmp_path / "outside.txt")
    lines = problems(folder, f"include: {include}\n{GOOD}")
    assert any(message in line for line in lines), lines


def test_includes_are_bounded_in_number(tmp_path: Path) -> None:
    for number in range(80):
        included(tmp_path, f"s/{number:02}.yaml", SERVICE.replace("wiki", f"w{number}"))
    assert any("more than 64 files" in line for line in problems(tmp_path, "include: s/*\n" + GOOD))


# --- policies by name -------------------------------------------------------------------


def test_a_policy_next_to_the_plan_wins_over_a_shipped_one(tmp_path: Path) -> None:
    included(
        tmp_path,
        "policies/nightly-30d.yaml",
        'schedule: {full: "0 3 * * *"}\nretention: {keep_at_least: 7d, gone_by: 10d}\n',
    )
    assert read(tmp_path, GOOD).policies["nightly-30d"].retention.gone_by == timedelta(days=10)


def test_problems_in_a_policy_are_told_with_those_of_the_plan(tmp_path: Path) -> None:
    included(tmp_path, "policies/own.yaml", 'schedule: {full: "0 25 * * *"}\nretention: {flor: 1}\n')
    lines = problems(tmp_path, GOOD.replace("nightly-30d", "own").replace("[main]", "[mian]"))
    assert [line.split(" (")[0] for line in lines] == [
        "drctl.yaml:15:20: no repository 'mian' in the plan",
        "policies/own.yaml:1:18: not a cron expression: '0 25 * * *'",
        "policies/own.yaml:2:13: unknown key 'flor'",
    ]


# --- whatever it is, it is a PlanError or a plan ------------------------------------------

words = st.sampled_from(
    ["here", "web1", "main", "docs", "files", "nightly-30d", "local", "s3", "command", "kind", "site", "path", "paths",
     "key", "file", "storage", "sources", "policy", "repositories", "objectives", "server", "rpo", "1h", "host", "include",
     "${X}", "Europe", "", "x", "\n", "/a"]
)  # fmt: skip
leaves = words | st.integers() | st.booleans() | st.none() | st.floats()
blocks = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_plan_with_random_parts_is_read_or_refused_and_nothing_else(
    tmp_path: Path, data: st.DataObject
) -> None:
    plan = yaml.safe_load(GOOD)
    for _ in range(data.draw(st.integers(1, 3))):
        place = plan
        while True:
            key = data.draw(st.sampled_from(sorted(place) or ["x"]))
            inner = place.get(key)
            if not isinstance(inner, dict) or data.draw(st.booleans()):
                break
            place = inner
        place[data.draw(st.just(key) | words)] = data.draw(blocks)
    lines = problems(tmp_path, yaml.safe_dump(plan, sort_keys=False), {"X": "y"})
    assert all(":" in line and line.isprintable() for line in lines)


def test_the_place_of_every_problem_lies_inside_its_file(tmp_path: Path) -> None:
    for good, bad, _, _ in BAD_PLANS:
        text = GOOD.replace(good, bad, 1)
        for line in problems(tmp_path, text):
            name, row, column = line.split(":")[:3]
            written = text.splitlines()[int(row) - 1]
            assert name == "drctl.yaml"
            assert 1 <= int(column) <= len(written) + 1
