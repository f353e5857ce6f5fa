"""Runs the commands that a page shows, and holds what they print to what the page says.

A fenced block marked `console` is a terminal session: `$ ` begins a command, `> ` goes on with it,
everything else is what it prints. Invariant: a command that fails, fails the page, unless the next
command is `echo $?`, which then says how it must end; and whatever output is shown must be printed,
line by line, where `...` stands for any lines, or for any rest of a line.

Ids and times differ from run to run: the first time one is printed, it is remembered for what the
page calls it, and later commands and output are held to it. Sizes and durations may differ.
A block after `<!-- file: NAME -->` is written to that file before the next command runs.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOME = "/home/jane"  # the home directory of every page
_TIMEOUT_S = 240
_FENCE = re.compile(r"^```(\S*)")
_FILE = re.compile(r"^<!-- file: (\S+) -->$")
_ELLIPSIS = "..."
_ID = r"[0-9a-f]{8}"
_TIME = r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\dZ"
_DATE = r"\d{4}-\d\d-\d\d"
_SIZE = r"\d+(?:\.\d+)? (?:B|KiB|MiB|GiB)"
_VARYING = re.compile(
    # an id without a digit in it would be taken for a word
    rf"(?P<time>\b{_TIME})|(?P<id>\b(?=[0-9a-f]*\d){_ID}\b)|(?P<date>\b{_DATE}\b)|(?P<size>\b{_SIZE}\b)"
    r"|(?P<rest>\.\.\.)|(?P<space> +)"
)
_STANDS_FOR = {
    "time": f"({_TIME})",
    "id": f"({_ID})",
    "date": _DATE,
    "size": _SIZE,
    "rest": ".*",
    "space": " +",
}


@dataclass(frozen=True, slots=True)
class Command:
    """What stands after `$ `, and the lines a page shows below it; none: it does not say."""

    line: int
    text: str
    shown: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class File:
    """A file whose content a page gives."""

    line: int
    name: str
    content: str


class PageError(AssertionError):
    """A page says what is not so."""


def steps_of(text: str) -> Iterator[Command | File]:
    """The commands and files of a page, in their order."""
    for start, kind, name, lines in _blocks(text):
        if name is not None:
            yield File(start, name, "\n".join(lines) + "\n")
        elif kind == "console":
            yield from _commands(start, lines)


def _blocks(text: str) -> Iterator[tuple[int, str, str | None, list[str]]]:
    kind: str | None = None
    name: str | None = None
    start, lines = 0, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        fence = _FENCE.match(line)
        if kind is None and fence is not None:
            kind, start, lines = fence[1], number, []
        elif kind is None:
            marked = _FILE.match(line)
            name = marked[1] if marked else (name if not line.strip() else None)
        elif fence is not None:
            yield start, kind, name, lines
            kind = name = None
        else:
            lines.append(line)


def _commands(start: int, lines: Sequence[str]) -> Iterator[Command]:
    at, text, shown = 0, "", list[str]()
    for number, line in enumerate(lines, start + 1):
        if line.startswith("$ "):
            if at:
                yield Command(at, text, tuple(shown))
            at, text, shown = number, line[2:], []
        elif line.startswith("> ") and not shown:
            text += "\n" + line[2:]
        else:
            shown.append(line)
    if at:
        yield Command(at, text, tuple(shown))


@dataclass
class Session:
    """A terminal in a home directory of its own. `replaced` maps what pages call a server or a path
    to what it is here."""

    folder: Path
    replaced: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.home = self.folder / "home"
        self.home.mkdir()
        (self.folder / "temporary").mkdir()
        self._state = self.folder / "state"
        programs = self.folder / "bin"
        programs.mkdir()
        drctl = programs / "drctl"
        python = shlex.quote(sys.executable)
        drctl.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {python} -m drctl "$@"\n')
        drctl.chmod(0o755)
        self._known: dict[str, str] = {}
        self._remember_shell(programs)

    def run(self, page: Path) -> int:
        """Go through a page; PageError names its line. Returns how many commands were run."""
        steps = list(steps_of(page.read_text(encoding="utf-8")))
        ran, ended = 0, 0
        for number, step in enumerate(steps):
            where = f"{page.name}:{step.line}"
            if isinstance(step, File):
                self._write(step)
            elif step.text.strip() == "echo $?":
                if step.shown != (str(ended),):
                    raise PageError(f"{where}: the exit code is {ended}, the page says {step.shown}")
            else:
                ended, printed = self._shell(step.text)
                ran += 1
                told = number + 1 < len(steps) and getattr(steps[number + 1], "text", "") == "echo $?"
                if ended and not told:
                    raise PageError(f"{where}: {step.text!r} ended with {ended}:\n{printed}")
                self._compare(where, step, printed)
        return ran

    def _write(self, file: File) -> None:
        path = Path(self._here(file.name))
        path = path if path.is_absolute() else Path(self._folder()) / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._here(file.content), encoding="utf-8")

    def _shell(self, text: str) -> tuple[int, str]:
        script = f'. {self._state}.env\ncd "$(cat {self._state}.cwd)"\n{self._here(text)}\nended=$?\n'
        script += f"{{ export -p; umask -p; }} >{self._state}.env\npwd >{self._state}.cwd\nexit $ended\n"
        done = subprocess.run(
            ["bash", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={},
            timeout=_TIMEOUT_S,
            check=False,
        )
        return done.returncode, done.stdout.decode(errors="replace")

    def _remember_shell(self, programs: Path) -> None:
        path = f"{programs}:{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
        variables = {
            "PATH": path,
            "HOME": str(self.home),
            "TMPDIR": str(self.folder / "temporary"),
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            **self.variables,
        }
        lines = (f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
        Path(f"{self._state}.env").write_text("".join(lines))
        Path(f"{self._state}.cwd").write_text(f"{self.home}\n")

    def _folder(self) -> str:
        return Path(f"{self._state}.cwd").read_text().strip()

    def _here(self, text: str) -> str:
        for theirs, ours in {**self.replaced, HOME: str(self.home), **self._known}.items():
            text = text.replace(theirs, ours)
        return text

    def _compare(self, where: str, command: Command, printed: str) -> None:
        lines = [line.rstrip() for line in printed.splitlines()]
        expected = [line.rstrip() for line in command.shown]
        if not expected:
            return
        at = 0
        skipping = False
        for wanted in expected:
            if wanted.strip() == _ELLIPSIS:
                skipping = True
                continue
            found = next(
                (i for i in range(at, len(lines)) if self._matches(wanted, lines[i])),
                None,
            )
            if found is None or (found > at and not skipping):
                raise PageError(f"{where}: {command.text!r} does not print {wanted!r}, but:\n{printed}")
            at, skipping = found + 1, False
        if at < len(lines) and not skipping:
            raise PageError(f"{where}: {command.text!r} prints more than the page shows:\n{printed}")

    def _matches(self, wanted: str, line: str) -> bool:
        """Whether a printed line is the one that is shown; remembers its ids and times."""
        names, pattern, done = list[str](), "", 0
        for found in _VARYING.finditer(wanted):
            kind = found.lastgroup or ""
            pattern += re.escape(self._here(wanted[done : found.start()])) + _STANDS_FOR[kind]
            names += [found[0]] if kind in ("time", "id") else []
            done = found.end()
        matched = re.fullmatch(pattern + re.escape(self._here(wanted[done:])), line)
        if matched is None:
            return False
        pairs = list(zip(names, matched.groups(), strict=True))
        if not all(_agree(self._known.get(name, seen), seen) for name, seen in pairs):
            return False
        for name, seen in pairs:
            self._known.setdefault(name, seen)
        return True


def _agree(known: str, seen: str) -> bool:
    """An id is itself; a snapshot's time and its receipt may fall into different seconds."""
    if known == seen or ":" not in known or ":" not in seen:
        return known == seen
    apart = datetime.fromisoformat(known) - datetime.fromisoformat(seen)
    return abs(apart) <= timedelta(seconds=2)
