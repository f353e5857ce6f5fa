"""The plan `drctl init` writes is accepted, whatever the machine is called."""

# ruff: noqa: E501 - tables of cases read best with one case a line

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drctl.domain.plan import SecretReference
from drctl.errors import UsageError
from drctl.planfile.template import Start, host_name, quote, render_plan
from tests.unit.planfile.plans import FilesOptions, LocalOptions, read

START = Start(
    "web1.example.net",
    "Europe/Stockholm",
    ("/usr/share/doc",),
    "/var/lib/drctl/repository",
    "/etc/drctl/main.key",
)


def test_the_first_plan_of_a_machine_says_what_it_was_given(tmp_path: Path) -> None:
    plan = read(tmp_path, render_plan(START))
    assert list(plan.hosts) == ["web1"]
    assert plan.time_zone == "Europe/Stockholm"
    assert plan.repositories["main"].storage.options == LocalOptions("/var/lib/drctl/repository")
    assert plan.repositories["main"].key == SecretReference(file="/etc/drctl/main.key")
    options = plan.services["files"].sources["files"].options
    assert isinstance(options, FilesOptions)
    assert options.paths == ("/usr/share/doc",)
    assert plan.services["files"].policy == "nightly-30d"


def test_what_is_commented_out_is_accepted_too_once_the_sign_is_removed(tmp_path: Path) -> None:
    text = render_plan(START).replace("# include: [services/*.yaml]", "# ")
    uncommented = re.sub(r"^( *)# (?= *(?:[a-z0-9_]+:( |$)|- ))", r"\1", text, flags=re.MULTILINE)
    plan = read(tmp_path, "\n".join(line for line in uncommented.splitlines() if "drctl plan " not in line))
    assert plan.calendar == "sweden"
    assert plan.hosts["db1"].known_hosts == "/etc/drctl/known_hosts"
    assert plan.services["files"].contacts[0].email == "jane@example.net"
    assert list(plan.sites) == ["here", "elsewhere"]


anything = st.text(min_size=1, max_size=30).filter(lambda text: "\0" not in text)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=anything, host=st.text(max_size=80), organisation=anything, exclude=st.lists(anything, max_size=3)
)
def test_any_names_of_a_machine_give_a_plan_that_is_accepted(
    tmp_path: Path, path: str, host: str, organisation: str, exclude: list[str]
) -> None:
    start = replace(
        START, hostname=host, paths=(f"/{path}", "/x"), repository=f"/{path}", key_file=f"/{path}",
        organisation=organisation, exclude=exclude,
    )  # fmt: skip
    plan = read(tmp_path, render_plan(start))
    options = plan.services["files"].sources["files"].options
    assert options == FilesOptions(paths=(f"/{path}", "/x"), exclude=tuple(exclude))
    assert plan.organisation == organisation
    assert plan.repositories["main"].key == SecretReference(file=f"/{path}")


def test_a_path_that_is_not_utf8_is_refused_with_a_hint() -> None:
    with pytest.raises(UsageError, match=r"'/a\\udcff' is not UTF-8"):
        render_plan(replace(START, paths=("/a\udcff",)))


@pytest.mark.parametrize(
    ("hostname", "name"),
    [("web1", "web1"), ("web1.example.net", "web1"), ("", "this-machine"), ("--", "this-machine"), ("å b", "b"),
     ("a_b-c", "a_b-c"), ("x" * 80, "x" * 63)],
)  # fmt: skip
def test_a_machines_name_becomes_a_name_of_the_plan(hostname: str, name: str) -> None:
    assert host_name(hostname) == name


def test_references_in_a_quoted_value_are_text() -> None:
    assert quote('a"${HOME}\\\n') == '"a\\"$${HOME}\\\\\\u000A"'
