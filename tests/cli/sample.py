"""Commands that only tests have: each does one thing the boundary must cope with."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import click

from drctl.cli.boundary import run
from drctl.cli.command import command, yes_option
from drctl.cli.lazy import RootGroup, build_root
from drctl.cli.session import Session
from drctl.cli.table import Column
from drctl.domain.events import Noticed, Progressed, Started
from drctl.domain.units import show_size
from drctl.errors import ExitCode, LockedError, RefusedError

HOSTILE = "\x1b[2J\u202egpj.exe\r\nroot: fine\x07\udcff"


@command()
def fails(session: Session) -> None:
    """Fail with a known error."""
    raise LockedError(f"repository {HOSTILE} is locked", hint="wait, or run: drctl repo unlock")


@command()
def breaks(session: Session) -> None:
    """Meet a defect."""
    raise ZeroDivisionError("first line\nsecond line")


@command()
def ends_early(session: Session) -> None:
    """Meet an end of file where data should be: a defect, not a Ctrl-D."""
    raise EOFError("worker went away")


@command()
def lists(session: Session) -> None:
    """Print a table with hostile names."""
    rows: list[dict[str, object]] = [
        {
            "path": os.fsencode(HOSTILE),
            "size": 1536,
            "time": datetime(2026, 11, 22, 1, 2, 3, tzinfo=UTC),
            "x": 1,
        },
        {"path": b"[red]plain[/red]", "size": None, "time": None, "x": 2},
    ]
    columns = [Column("path", "Path"), Column("size", "Size", show_size, right=True), Column("time", "Time")]
    session.out.table("file", columns, rows)
    session.out.note("a note")
    session.out.warning("a warning", "a hint")
    session.out.summary({"files": 2}, "2 files")


@command()
def says(session: Session) -> None:
    """Print a hostile text by every way there is."""
    out = session.out
    out.line(HOSTILE)
    out.record("x", {"name": HOSTILE}, HOSTILE, HOSTILE)
    out.document(HOSTILE.replace("\n", "\x85\u2028"))
    out.summary({"name": HOSTILE}, HOSTILE)
    out.note(HOSTILE)
    out.detail(HOSTILE)
    out.warning(HOSTILE, HOSTILE)
    out.failure(HOSTILE, HOSTILE)
    out.problems([({"name": HOSTILE}, HOSTILE)])
    with session.progress() as emit:
        emit(Noticed(HOSTILE, HOSTILE))
    raise RefusedError(HOSTILE, hint=HOSTILE)


@command()
def lists_problems(session: Session) -> None:
    """Print 60 problems."""
    session.out.problems([({"number": number}, f"problem {number}") for number in range(60)])


@command()
def incomplete(session: Session) -> ExitCode:
    """Return an exit code."""
    return ExitCode.INCOMPLETE


@command()
@click.argument("file", type=click.Path(path_type=Path))
def waits(session: Session, file: Path) -> None:
    """Wait until a signal comes; clean-up writes FILE."""
    try:
        print("waiting", flush=True)
        time.sleep(30)
    finally:
        file.write_text("cleaned up")


@command()
def interrupted_while_importing(session: Session) -> None:
    """What a signal in the middle of a dataclass's decorator amounts to."""
    exec("raise KeyboardInterrupt", {})


@command()
@yes_option
def destroys(session: Session, yes: bool) -> None:
    """Ask, then do."""
    session.confirm("delete 3 snapshots of web", "web", yes=yes)
    session.out.line("deleted")


@command()
def works(session: Session) -> None:
    """Emit progress for 2.5 s in steps of 0.1 s."""
    with session.progress() as emit:
        emit(Started("backing up web", total_bytes=2500))
        for step in range(26):
            emit(Progressed(files=step, bytes=step * 100, current=f"/srv/{HOSTILE}"))
            session.clock.sleep(0.1)


@command()
def plan_file(session: Session) -> None:
    """Print which plan file is in force."""
    session.out.line(str(session.plan_file()))


@command()
def prints_much(session: Session) -> None:
    """Print until the reader goes, and then work on to a known end."""
    for number in range(100_000):
        session.out.line(f"line {number}")
    session.out.note("all written")


class Sample(NamedTuple):
    """A row of the test table."""

    words: str
    target: str
    help: str = "a sample"


def sample_root() -> RootGroup:
    """A root group with the commands above, under `sample` (and `fails` at the top)."""
    names = (
        "fails", "breaks", "ends_early", "lists", "incomplete", "waits", "destroys", "works", "plan_file",
        "prints_much", "says", "lists_problems", "interrupted_while_importing",
    )  # fmt: skip
    rows = [Sample(name.replace("_", "-"), f"tests.cli.sample:{name}") for name in names]
    rows.append(Sample("nested deep", "tests.cli.sample:incomplete"))
    sections = {"Sample": [row.words.split()[0] for row in rows]}
    return build_root(rows, {"nested": "a group"}, sections, (), "Samples.")


if __name__ == "__main__":
    import sys

    sys.exit(run(sample_root(), sys.argv[1:], os.environ))
