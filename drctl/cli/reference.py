"""The command reference as Markdown and as a man page, made from the commands themselves.

Invariant: pure renderings of the click tree and the tables; the same commands give the same bytes
on every machine, so a stale page is a failing test. `python -m drctl.cli.reference DIR` writes them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import cleandoc
from pathlib import Path

import click

from drctl import __version__
from drctl.cli.command import Command
from drctl.cli.lazy import LazyGroup, exit_code_rows
from drctl.cli.options import common_options
from drctl.cli.tree import ABOUT, EXAMPLES, root

Row = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Section:
    """One command as the pages show it."""

    words: str
    usage: str
    text: str
    options: tuple[Row, ...]
    examples: tuple[Row, ...]


def sections() -> list[Section]:
    """Every command there is, in taught order."""
    with click.Context(root(), info_name="drctl") as ctx:
        return list(_walk(ctx))


def markdown(commands: list[Section]) -> str:
    """`commands.md`: contents, common options, every command, exit codes."""
    lines = ["# Commands", "", "<!-- made by `make docs` from the commands; edit those -->", "", ABOUT, ""]
    lines += [f"- [`drctl {one.words}`](#drctl-{one.words.replace(' ', '-')})" for one in commands]
    lines += ["", "## Options of every command", "", *_markdown_rows(_common_rows())]
    for one in commands:
        lines += ["", f"## drctl {one.words}", "", "```", one.usage, "```", "", one.text]
        if one.options:
            lines += ["", *_markdown_rows(one.options)]
        if one.examples:
            lines += ["", "```", *(f"{line}    # {what}" for line, what in one.examples), "```"]
    lines += ["", "## Exit codes", "", *_markdown_rows(exit_code_rows())]
    return "\n".join(lines) + "\n"


def man_page(commands: list[Section]) -> str:
    """`drctl.1` in man(7)'s macros."""
    lines = [f'.TH DRCTL 1 "" "drctl {__version__}" "drctl"', ".SH NAME", r"drctl \- continuity as code"]
    lines += [".SH SYNOPSIS", ".B drctl", _roff("[OPTIONS] COMMAND [ARGS]...")]
    lines += [".SH DESCRIPTION", *_roff_paragraphs(ABOUT), ".SH OPTIONS OF EVERY COMMAND"]
    lines += _roff_rows(_common_rows())
    lines += [".SH COMMANDS"]
    for one in commands:
        lines += [f".SS {_roff(one.usage)}", *_roff_paragraphs(one.text), *_roff_rows(one.options)]
        lines += _roff_rows(one.examples)
    lines += [".SH EXIT STATUS", *_roff_rows(exit_code_rows()), ".SH EXAMPLES"]
    first_words = {one.words.split()[0] for one in commands}
    lines += _roff_rows([row for row in EXAMPLES if row[0].split()[1] in first_words])
    return "\n".join(lines) + "\n"


def write(folder: Path) -> None:
    """Write both pages into `folder`, made when it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    commands = sections()
    (folder / "commands.md").write_text(markdown(commands), encoding="utf-8")
    (folder / "drctl.1").write_text(man_page(commands), encoding="utf-8")


def _walk(ctx: click.Context) -> Iterator[Section]:
    group = ctx.command
    assert isinstance(group, LazyGroup)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None, "the table lists it"
        with click.Context(command, info_name=name, parent=ctx) as inner:
            if isinstance(command, LazyGroup):
                yield from _walk(inner)
            else:
                yield _section(command, inner)


def _section(command: click.Command, ctx: click.Context) -> Section:
    common = {option.name for option in common_options()}
    records = [option.get_help_record(ctx) for option in command.params if option.name not in common]
    return Section(
        words=ctx.command_path.removeprefix("drctl "),
        usage=" ".join([ctx.command_path, *command.collect_usage_pieces(ctx)]),
        text=cleandoc(command.help or ""),
        options=tuple(record for record in records if record is not None and record[1]),
        examples=tuple(command.examples) if isinstance(command, Command) else (),
    )


def _common_rows() -> list[Row]:
    with click.Context(root(), info_name="drctl") as ctx:
        records = [option.get_help_record(ctx) for option in common_options()]
    return [record for record in records if record is not None]


def _markdown_rows(rows: list[Row] | tuple[Row, ...]) -> list[str]:
    return [f"- `{first}` {second}".rstrip() for first, second in rows]


def _roff(text: str) -> str:
    """Text with nothing left in it that troff would obey."""
    safe = text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq")
    return rf"\&{safe}" if safe.startswith(".") else safe


def _roff_paragraphs(text: str) -> list[str]:
    lines: list[str] = []
    for paragraph in text.split("\n\n"):
        shown = [line.strip() for line in paragraph.replace("\b", "").splitlines()]
        lines += [".PP", *(_roff(line) for line in shown if line)]
    return lines


def _roff_rows(rows: list[Row] | tuple[Row, ...]) -> list[str]:
    return [part for first, second in rows for part in (".TP", rf"\fB{_roff(first)}\fR", _roff(second))]


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("docs/reference"))
