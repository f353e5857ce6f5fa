"""Progress of a running workflow: a line on a terminal, `status` objects for programs.

Invariant: progress only listens; it draws on standard error, from the thread that emits, at most
ten times a second (programs: once a second), and leaves nothing on the screen behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, assert_never

from drctl.cli.escaping import inert
from drctl.cli.output import Format, Output
from drctl.domain.events import Emit, Event, Finished, Noticed, Progressed, Started
from drctl.domain.units import show_size
from drctl.ports import Clock

if TYPE_CHECKING:
    from rich.progress import Progress

DRAW_EVERY_S = 0.1
STATUS_EVERY_S = 1.0


@contextmanager
def follow(out: Output, clock: Clock) -> Iterator[Emit]:
    """An `Emit` that shows what it hears for as long as the block runs."""
    if out.interactive and not out.quiet:
        with _bar(out) as bar:
            yield Meter(out, clock, bar)
    else:
        yield Meter(out, clock, None)


class Meter:
    """Listens to one workflow after another and knows rate and time left of the current one."""

    def __init__(self, out: Output, clock: Clock, bar: Progress | None) -> None:
        self._out = out
        self._clock = clock
        self._bar = bar
        self._what = Started("")
        self._began = clock.monotonic()
        self._shown = float("-inf")

    def __call__(self, event: Event) -> None:
        match event:
            case Started():
                self._what, self._began = event, self._clock.monotonic()
                self._shown = float("-inf")
            case Progressed():
                self._show(event)
            case Noticed():
                self._out.warning(event.message, event.hint)
            case Finished():
                self._clear()
            case _:
                assert_never(event)

    def _show(self, at: Progressed) -> None:
        now = self._clock.monotonic()
        if now - self._shown < (STATUS_EVERY_S if self._bar is None else DRAW_EVERY_S):
            return
        self._shown = now
        if self._bar is not None:
            self._draw(self._bar, at, now)
        elif self._out.format is Format.JSON:
            self._out.status(self._fields(at, now))

    def _fields(self, at: Progressed, now: float) -> dict[str, object]:
        elapsed_s = now - self._began
        return {
            "what": self._what.what,
            "files": at.files,
            "bytes": at.bytes,
            "total_files": self._what.total_files,
            "total_bytes": self._what.total_bytes,
            "elapsed_s": round(elapsed_s, 3),
            "bytes_per_s": round(at.bytes / elapsed_s) if elapsed_s > 0 else None,
            "remaining_s": self._remaining_s(at, elapsed_s),
            "current": at.current,
        }

    def _remaining_s(self, at: Progressed, elapsed_s: float) -> int | None:
        total = self._what.total_bytes
        if total is None or at.bytes <= 0 or elapsed_s <= 0:
            return None
        return max(0, round((total - at.bytes) * elapsed_s / at.bytes))

    def _draw(self, bar: Progress, at: Progressed, now: float) -> None:
        known = self._fields(at, now)
        total, rate, left = (
            self._what.total_bytes,
            known["bytes_per_s"],
            self._remaining_s(at, now - self._began),
        )
        parts = [f"{at.files:,} files", show_size(at.bytes) + (f" of {show_size(total)}" if total else "")]
        if isinstance(rate, int):
            parts.append(f"{show_size(rate)}/s")
        if left is not None:
            parts.append(f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02} left")
        task = bar.task_ids[0]
        bar.update(
            task,
            description=inert(self._what.what),
            total=total,
            completed=at.bytes,
            figures=", ".join(parts),
            current=inert(at.current),
            visible=True,
        )
        bar.refresh()

    def _clear(self) -> None:
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], visible=False)
            self._bar.refresh()


@contextmanager
def _bar(out: Output) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column as TableColumn

    console = Console(file=out.stderr, highlight=False, markup=False, emoji=False)
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[figures]}", markup=False),
        TextColumn("{task.fields[current]}", markup=False, table_column=TableColumn(ratio=1, no_wrap=True)),
        console=console,
        transient=True,
        expand=True,
        auto_refresh=False,  # no thread: the pipeline forks its workers
        redirect_stdout=False,
        redirect_stderr=False,
    )
    bar.add_task("", total=None, visible=False, figures="", current="")
    out.go_live(console)
    try:
        with bar:
            yield bar
    finally:
        out.go_live(None)
