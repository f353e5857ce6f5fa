"""What is printed where, in which form, and that names from outside stay inert."""

from __future__ import annotations

import base64
import json
import os
import pty
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drctl.cli.escaping import inert, inert_name
from drctl.cli.json_values import json_fields, json_value
from drctl.domain.secret import Secret
from drctl.errors import ExitCode
from tests.cli.conftest import ROOT, Completed, environment
from tests.cli.sample import HOSTILE

Run = Callable[..., Completed]


def test_a_table_shows_hostile_names_inert_and_markup_untouched(sample: Run) -> None:
    done = sample("lists")
    assert done.stdout.splitlines() == [
        f"{'Path':<{len(inert(HOSTILE))}}     Size  Time",
        "\\x1b[2J\\u202egpj.exe\\r\\nroot: fine\\x07\\xff  1.5 KiB  2026-11-22 01:02:03Z",
        f"{'[red]plain[/red]':<{len(inert(HOSTILE))}}        -  -",
        "2 files",
    ]
    assert done.stderr == "a note\ndrctl: warning: a warning\nhint: a hint\n"


def test_quiet_leaves_data_and_warnings(sample: Run) -> None:
    done = sample("lists", "--quiet")
    assert done.stdout.splitlines()[-1] == "2 files"
    assert done.stderr == "drctl: warning: a warning\nhint: a hint\n"


def test_json_lines_hold_exact_values_and_end_with_a_summary(sample: Run) -> None:
    done = sample("lists", "--output", "json")
    assert done.stderr == ""
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    kinds = [line["message_type"] for line in lines]
    assert kinds == ["file", "file", "message", "warning", "summary"]
    assert {line["schema_version"] for line in lines} == {1}
    first, last = lines[0], lines[-1]
    assert first["time"] == "2026-11-22T01:02:03Z"
    assert first["size"] == 1536
    assert first["x"] == 1, "keys without a column are there too"
    assert os.fsdecode(base64.b64decode(first["path_base64"])) == HOSTILE
    assert last == {"message_type": "summary", "schema_version": 1, "exit_code": 0, "files": 2}
    assert done.stdout.isascii()


@pytest.mark.parametrize("options", [[], ["--verbose"], ["--output", "json"]])
def test_a_hostile_name_is_inert_by_whatever_way_it_is_printed(sample: Run, options: list[str]) -> None:
    done = sample("says", *options)
    assert done.returncode == 40
    for stream in (done.stdout, done.stderr):
        lines = stream.removesuffix("\n").split("\n")
        assert not [line for line in lines if not line.isprintable()]
        assert not [line for line in lines if line.startswith("root: fine")]
    shown = done.stdout + done.stderr
    assert shown.count("u202e") == (14 if "json" in options else 15 + len(options))


def test_a_long_list_of_problems_is_cut_for_people_only(sample: Run) -> None:
    short = sample("lists-problems").stderr.splitlines()
    assert short[49:] == [
        "drctl: warning: problem 49",
        "drctl: warning: and 10 more",
        "hint: --verbose or --output json lists them all",
    ]
    assert len(sample("lists-problems", "--verbose").stderr.splitlines()) == 60
    assert len(sample("lists-problems", "--output", "json").stdout.splitlines()) == 61


def _on_a_terminal(*arguments: str, **extra: str) -> bytes:
    main_end, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.cli.sample", *arguments],
        env=environment(COLUMNS="100", **extra),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    shown = b""
    while True:
        try:
            chunk = os.read(main_end, 65536)
        except OSError:  # EIO: the other end is closed
            break
        if not chunk:
            break
        shown += chunk
    os.close(main_end)
    assert process.wait(60) == 0 or "fails" in arguments
    return shown


def test_colour_is_for_terminals_and_no_color_is_respected() -> None:
    assert b"\x1b[31merror:\x1b[0m" in _on_a_terminal("fails")
    assert b"\x1b[1m" in _on_a_terminal("lists")
    for command in ("fails", "lists"):
        assert b"\x1b" not in _on_a_terminal(command, NO_COLOR="1")


def test_progress_is_drawn_on_a_terminal_and_leaves_nothing_behind() -> None:
    shown = _on_a_terminal("works").decode()
    assert "backing up web" in shown
    assert "left" in shown
    assert "/s" in shown
    assert "/srv/\\x1b[2J" in shown
    assert "\u202e" not in shown
    assert "\x1b[2J" not in shown
    assert b"backing up" not in _on_a_terminal("works", "--quiet")


def test_progress_is_silent_in_a_pipe_and_one_status_per_second_in_json(sample: Run) -> None:
    done = sample("works")
    assert (done.stdout, done.stderr) == ("", "")
    lines = [json.loads(line) for line in sample("works", "--output", "json").stdout.splitlines()]
    states = [line for line in lines if line["message_type"] == "status"]
    assert len(states) >= 2
    assert states[-1]["total_bytes"] == 2500
    assert states[-1]["bytes"] == states[-1]["files"] * 100
    assert isinstance(states[-1]["remaining_s"], int)
    times = [state["elapsed_s"] for state in states]
    assert all(later - earlier >= 0.99 for earlier, later in pairwise(times))


@given(st.binary(max_size=60))
def test_an_inert_name_is_one_printable_line(name: bytes) -> None:
    shown = inert_name(name)
    assert shown.isprintable()
    assert not {unicodedata.category(char) for char in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


@given(st.text(max_size=60))
def test_inert_text_is_printable_and_printable_text_is_left_alone(text: str) -> None:
    assert inert(text).isprintable()
    assert inert(inert(text)) == inert(text)
    if text.isprintable():
        assert inert(text) == text


@given(st.binary(max_size=40))
def test_json_gives_back_the_exact_bytes_of_a_name(name: bytes) -> None:
    document = json.loads(json.dumps(json_fields({"path": name})))
    if "path_base64" in document:
        assert base64.b64decode(document["path_base64"]) == name
    else:
        assert document["path"].encode() == name


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (datetime(2026, 3, 29, 3, 0, tzinfo=timezone(timedelta(hours=2))), "2026-03-29T01:00:00Z"),
        (datetime(2026, 3, 29, 3, 0, 0, 500, tzinfo=UTC), "2026-03-29T03:00:00.000500Z"),
        (timedelta(days=30), 2_592_000.0),
        (ExitCode.LOCKED, 11),
        (Path("/srv"), "/srv"),
        ({"a": (1, None, True)}, {"a": [1, None, True]}),
        (2**63, 2**63),
    ],
)
def test_json_values_have_one_agreed_form(value: object, expected: object) -> None:
    assert json_value(value) == expected


@pytest.mark.parametrize("value", [Secret("canary"), object(), 1j])
def test_json_refuses_what_has_no_agreed_form_secrets_first(value: object) -> None:
    with pytest.raises(TypeError):
        json_value(value)


def test_json_refuses_an_instant_without_a_time_zone() -> None:
    with pytest.raises(ValueError, match="time zone"):
        json_value(datetime(2026, 1, 1))
