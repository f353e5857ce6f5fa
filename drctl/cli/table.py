"""Tables for people, laid out by rich.

Invariant: every cell is inert text before it is laid out; rich's markup is never interpreted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from drctl.cli.escaping import inert, inert_name

_NO_LIMIT = 1_000_000  # cells; a pipe has no width, and a cut value is a wrong value


@dataclass(frozen=True, slots=True)
class Column:
    """One column: which key of a row, under which title, and how a value is shown (default: by type)."""

    key: str
    title: str
    show: Callable[..., str] | None = None
    right: bool = False


def render(
    columns: Sequence[Column], rows: Sequence[Mapping[str, object]], *, width: int | None, bold: bool
) -> list[str]:
    """The lines of the table, without trailing blanks; `width` None means as wide as needed."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold" if bold else None)
    for column in columns:
        table.add_column(
            Text(column.title),
            justify="right" if column.right else "left",
            overflow="fold",
            no_wrap=width is None,
        )
    for row in rows:
        table.add_row(*(Text(show_cell(column, row.get(column.key))) for column in columns))
    console = Console(
        width=width or _NO_LIMIT, force_terminal=bold, color_system="standard" if bold else None
    )
    with console.capture() as captured:
        console.print(table)
    return [line.rstrip() for line in captured.get().splitlines()]


def show_cell(column: Column, value: object) -> str:
    """One value as inert text; a missing one is `-`."""
    if value is None:
        return "-"
    if column.show is not None:
        return inert(column.show(value))
    match value:
        case bool():
            return "yes" if value else "no"
        case datetime():
            return show_instant(value)
        case bytes():
            return inert_name(value)
        case Enum():
            return inert(str(value.value))
        case list() | tuple():
            return ", ".join(show_cell(column, item) for item in value) or "-"
        case _:
            return inert(str(value))


def show_instant(value: datetime) -> str:
    """UTC to the second: `2026-11-22 01:46:49Z`."""
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
