"""The only printer of drctl.

Invariant: but for click's help nothing else in drctl writes to standard output or standard error,
and whatever is written here has passed `inert`: a hostile name is shown and not obeyed.

What is printed where:
- Standard output is data: what was asked for (a table, a snapshot, a script). It can be piped.
- Standard error is messages: notes, warnings, progress, errors. `--quiet` keeps warnings and
  errors only, `--verbose` adds details.
- `--output json`: standard output is JSON, one object per line, each with `message_type` and
  `schema_version`. Messages and progress become objects too (`message`, `warning`, `status`, at
  most one status per second). The last line is always one `summary` or one `error`, with
  `exit_code`. An error's text goes to standard error as well, for whoever reads mail from cron.
- JSON values: instants are RFC 3339 in UTC, sizes are integer bytes, durations are seconds, names
  are text; a name that is not UTF-8 is shown escaped and given exactly in `<key>_base64`.
- Text: instants in UTC to the second, sizes with a binary unit, a missing value is `-`.
- Colour only on a terminal and without NO_COLOR. Progress only on a terminal, never with `--quiet`.
- When the reader of standard output goes away, the work goes on in silence.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from io import TextIOWrapper
from typing import TYPE_CHECKING, TextIO

from drctl.cli.escaping import inert
from drctl.errors import DrctlError, ExitCode, StorageError

if TYPE_CHECKING:
    from rich.console import Console

    from drctl.cli.table import Column

SCHEMA_VERSION = 1
PROBLEMS_SHOWN = 50


class Format(Enum):
    """What `--output` takes."""

    TEXT = "text"
    JSON = "json"


class Output:
    """Prints one run's data and messages, as text or as JSON lines."""

    def __init__(
        self, environment: Mapping[str, str], stdout: TextIO | None = None, stderr: TextIO | None = None
    ) -> None:
        self.format = Format.TEXT
        self.quiet = False
        self.verbose = False
        self.stdout = stdout or sys.stdout
        self.stderr = stderr or sys.stderr
        self._environment = environment
        self._summary: dict[str, object] = {}
        self._live: Console | None = None
        for stream in (self.stdout, self.stderr):
            if isinstance(stream, TextIOWrapper):
                # a locale that lacks a character must not turn a listing into a crash
                stream.reconfigure(errors="backslashreplace")

    # --- data ---

    def line(self, text: str) -> None:
        """One line of data for people; JSON has `record` for it."""
        if self.format is Format.TEXT:
            self._write(self.stdout, inert(text))

    def document(self, text: str, *, kind: str = "document") -> None:
        """Several lines of data (a script, a schema, a plan), line breaks kept."""
        if self.format is Format.JSON:
            self._write_json(kind, {"text": text})
            return
        # not splitlines(): it would break at controls that a hostile text may hold
        for line in text.removesuffix("\n").split("\n"):
            self._write(self.stdout, "\t".join(inert(part) for part in line.split("\t")))

    def record(self, message_type: str, fields: Mapping[str, object], *lines: str) -> None:
        """One object: a JSON line, or the text lines where people read."""
        if self.format is Format.JSON:
            self._write_json(message_type, fields)
            return
        for line in lines:
            self._write(self.stdout, inert(line))

    def table(
        self, message_type: str, columns: Sequence[Column], rows: Iterable[Mapping[str, object]]
    ) -> None:
        """A table for people; for programs one object per row, with all its keys."""
        if self.format is Format.JSON:
            for row in rows:
                self._write_json(message_type, row)
            return
        for line in self._render(columns, list(rows)):
            self._write(self.stdout, line)

    def summary(self, fields: Mapping[str, object], text: str | None = None) -> None:
        """What the run came to. JSON prints it last, when the exit code is known."""
        self._summary.update(fields)
        if text is not None:
            self.line(text)

    # --- messages ---

    def note(self, text: str) -> None:
        """Something worth knowing."""
        if not self.quiet:
            self._message("message", text)

    def detail(self, text: str) -> None:
        """Something worth knowing with `--verbose`."""
        if self.verbose:
            self._message("message", text)

    def warning(self, text: str, hint: str | None = None) -> None:
        """Something a person should act on; shown under `--quiet` too."""
        self._message("warning", text, hint)

    def failure(self, text: str, hint: str | None = None) -> None:
        """One part of a run failed for good and the others go on; the exit code tells at the end."""
        self._message("failure", text, hint)

    def problems(self, found: Sequence[tuple[Mapping[str, object], str]]) -> None:
        """Entries that were left out or are not as they should be: `problem` objects, or warnings for
        people, of which a long list is cut unless `--verbose`."""
        if self.format is Format.JSON:
            for fields, _text in found:
                self._write_json("problem", fields)
            return
        shown = len(found) if self.verbose else PROBLEMS_SHOWN
        for _fields, text in found[:shown]:
            self._message("warning", text)
        if len(found) > shown:
            self.warning(f"and {len(found) - shown} more", "--verbose or --output json lists them all")

    def error(self, error: DrctlError) -> None:
        """The end of a failed run: `drctl: error: ...` and a hint, or the last JSON line. Of an error
        with several problems (a PlanError) each comes on a line of its own, and then their number."""
        label = self._paint("error:", "31")
        problems = getattr(error, "problems", ())  # its module is too heavy to be imported here
        for problem in problems if len(problems) > 1 else ():
            self._write(self.stderr, inert(str(problem)))
        message = f"{len(problems)} problems" if len(problems) > 1 else error.message
        self._write(self.stderr, f"drctl: {label} {inert(message)}")
        if error.hint:
            self._write(self.stderr, f"{self._paint('hint:', '36')} {inert(error.hint)}")
        if self.format is Format.JSON:
            fields: dict[str, object] = {"exit_code": int(error.exit_code)}
            fields |= {"error": error.message, "hint": error.hint}
            if problems:
                fields["problems"] = list(problems)
            self._write_json("error", fields)

    def status(self, fields: Mapping[str, object]) -> None:
        """Progress for programs; whoever calls keeps it to one per second."""
        if self.format is Format.JSON:
            self._write_json("status", fields)

    def finish(self, code: ExitCode) -> None:
        """The last line of a run that was not ended by an error."""
        if self.format is Format.JSON:
            self._write_json("summary", {"exit_code": int(code), **self._summary})

    # --- the terminal ---

    @property
    def interactive(self) -> bool:
        """Whether a person reads the messages: progress and questions make sense."""
        return self.format is Format.TEXT and self.stderr.isatty() and self._environment.get("TERM") != "dumb"

    def ask(self, question: str) -> str:
        """What a person types, without the line break; empty at the end of input."""
        self.stderr.write(inert(question))
        self.stderr.flush()
        return sys.stdin.readline().rstrip("\n")

    def interject(self, text: str) -> None:
        """A message from a signal handler: unbuffered, because a stream may be in mid-write."""
        os.write(self.stderr.fileno(), f"\ndrctl: {inert(text)}\n".encode())

    def go_live(self, console: Console | None) -> None:
        """While progress is drawn, messages go above it through the same console."""
        self._live = console

    def _paint(self, word: str, colour: str) -> str:
        if self.stderr.isatty() and "NO_COLOR" not in self._environment:
            return f"\x1b[{colour}m{word}\x1b[0m"
        return word

    def _message(self, kind: str, text: str, hint: str | None = None) -> None:
        if self.format is Format.JSON:
            self._write_json(kind, {"text": text, **({"hint": hint} if hint else {})})
            return
        labels = {"warning": self._paint("warning:", "33"), "failure": self._paint("failed:", "31")}
        label = f"drctl: {labels[kind]} " if kind in labels else ""
        self._write(self.stderr, label + inert(text))
        if hint:
            self._write(self.stderr, f"{self._paint('hint:', '36')} {inert(hint)}")

    def _render(self, columns: Sequence[Column], rows: Sequence[Mapping[str, object]]) -> list[str]:
        from shutil import get_terminal_size

        from drctl.cli.table import render

        terminal = self.stdout.isatty()
        return render(
            columns,
            rows,
            width=get_terminal_size().columns if terminal else None,
            bold=terminal and "NO_COLOR" not in self._environment,
        )

    # --- writing ---

    def _write_json(self, message_type: str, fields: Mapping[str, object]) -> None:
        from drctl.cli.json_values import json_fields

        document = {"message_type": message_type, "schema_version": SCHEMA_VERSION, **json_fields(fields)}
        # ASCII only: bidi marks and C1 controls stay escaped; DEL is the one control JSON lets through
        self._write(self.stdout, json.dumps(document).replace("\x7f", "\\u007f"))

    def _write(self, stream: TextIO, line: str) -> None:
        try:
            if stream is self.stderr and self._live is not None:
                from rich.text import Text

                self._live.print(Text.from_ansi(line), soft_wrap=True)
                return
            stream.write(line + "\n")
            stream.flush()
        except BrokenPipeError:
            # nobody listens any more; a backup goes on, and the interpreter must not trip at exit
            _silence(stream)
        except OSError as exc:
            _silence(stream)
            name = "standard output" if stream is self.stdout else "standard error"
            raise StorageError(f"cannot write to {name}: {exc.strerror}") from exc


def _silence(stream: TextIO) -> None:
    # what is still buffered would fail once more at exit, with a traceback and code 120
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
