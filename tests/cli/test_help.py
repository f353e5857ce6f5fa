"""Help is fast because nothing is imported for it, and true because it is rendered from the tables."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib import import_module

import click
import pytest

from drctl.cli.tree import COMMANDS, EXAMPLES, GROUPS, SECTIONS, root
from drctl.errors import EXIT_CODE_MEANINGS
from tests.cli.conftest import Completed, environment

HEAVY = (
    "boto3", "botocore", "paramiko", "pydantic", "rich", "croniter", "cryptography", "yaml", "zstandard",
    "orjson", "tenacity", "pathspec", "multiprocessing", "asyncio", "importlib.metadata",
)  # fmt: skip


def _imported(*arguments: str) -> set[str]:
    code = (
        "import sys; from drctl.cli import main; main(sys.argv[1:]);"
        "print(*sys.modules, sep='\\n', file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stderr.split())


GROUP_HELPS = [("--help",), ("--version",), *((group, "--help") for group in root().commands)]


@pytest.mark.parametrize("arguments", GROUP_HELPS)
def test_help_imports_nothing_heavy_and_no_command(arguments: tuple[str, ...]) -> None:
    modules = _imported(*arguments)
    assert "click" in modules, "the probe works"
    assert modules.isdisjoint(HEAVY)
    assert modules.isdisjoint({leaf.target.partition(":")[0] for leaf in COMMANDS})


@pytest.mark.parametrize("leaf", COMMANDS, ids=lambda leaf: leaf.words)
def test_every_listed_command_exists_and_explains_itself(leaf: object) -> None:
    module, _, attribute = leaf.target.partition(":")  # type: ignore[attr-defined]
    found = getattr(import_module(module), attribute)
    assert isinstance(found, click.Command)
    assert found.help, "a docstring is the help text"
    assert not [option for option in found.params if isinstance(option, click.Option) and not option.help]


def test_every_group_and_command_stands_in_a_section_once() -> None:
    taught = [name for names in SECTIONS.values() for name in names]
    assert len(taught) == len(set(taught))
    assert {leaf.words.split()[0] for leaf in COMMANDS} <= set(taught)
    assert {leaf.words.rpartition(" ")[0] for leaf in COMMANDS} - {""} <= set(GROUPS)
    assert {line.split()[1] for line, _ in EXAMPLES} <= set(taught)


def test_help_shows_commands_in_taught_order_and_every_exit_code(drctl: Callable[..., Completed]) -> None:
    text = drctl("--help").stdout
    shown = [line.split()[0] for line in text.splitlines() if line.startswith("  ") and line.strip()]
    listed = [name for name in root().list_commands(click.Context(root())) if name in shown]
    assert [name for name in shown if name in listed] == listed
    for code, meaning in EXIT_CODE_MEANINGS.items():
        assert [str(int(code)), *meaning.split()] in [line.split() for line in text.splitlines()]


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["complation"], "completion"),
        (["--outpt", "json"], "--output"),
        (["completion", "--verbos"], "--verbose"),
    ],
)
def test_a_misspelt_word_is_a_usage_error_that_says_what_was_meant(
    drctl: Callable[..., Completed], words: list[str], meant: str
) -> None:
    done = drctl(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1] == f"hint: did you mean {meant}?"


def test_no_command_at_all_shows_the_help_as_a_usage_error(drctl: Callable[..., Completed]) -> None:
    done = drctl()
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Exit codes" in done.stderr
