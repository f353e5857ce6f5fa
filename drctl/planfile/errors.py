"""What is wrong in a plan, where, and what to do about it.

Invariant: a `PlanError` carries at least one problem, in the order of files and lines, and shows
each on a line of its own with control characters escaped.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from drctl.errors import UsageError

_LONGEST_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a file; line and column count from 1, columns in characters."""

    file: str
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{printable(self.file)}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: message in lower case, hint says what to do."""

    file: str
    line: int
    column: int
    message: str
    hint: str | None = None

    def __str__(self) -> str:
        where = Position(self.file, self.line, self.column)
        return printable(f"{where}: {self.message}" + (f" ({self.hint})" if self.hint else ""))


class PlanError(UsageError):
    """The plan cannot be used: every problem found in it, one a line."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[object, ...]:
        return (PlanError, (self.problems,))


class Problems:
    """Collects problems while reading goes on, so that a person sees all of them at once."""

    def __init__(self) -> None:
        self._found: dict[tuple[Position, str], Problem] = {}
        self._files: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, at: Position, message: str, hint: str | None = None, *, beside: str = "") -> None:
        """Note a problem. The first one at a position wins: what follows from it only confuses;
        `beside` names one that stands beside others (a key that is missing there)."""
        if at.file not in self._files:
            self._files.append(at.file)
        self._found.setdefault((at, beside), Problem(at.file, at.line, at.column, message, hint))

    def add_file(self, file: str) -> None:
        """Files are listed in the order in which they were read."""
        if file not in self._files:
            self._files.append(file)

    def error(self) -> PlanError:
        """All of them as one error, by file and position."""
        order = {file: number for number, file in enumerate(self._files)}
        return PlanError(
            sorted(self._found.values(), key=lambda found: (order[found.file], found.line, found.column))
        )

    def raise_if_any(self) -> None:
        """PlanError unless nothing was found."""
        if self._found:
            raise self.error()


def printable(text: str) -> str:
    """The text on one line, without control characters, lone surrogates or bidi marks, cut to a bound
    of 4096 characters."""
    shown = (c if c.isprintable() else ascii(c)[1:-1] for c in text[:4096])
    return "".join(shown)


def quoted(text: str) -> str:
    """A value as messages show it: quoted, on one line, cut to a bounded length."""
    cut = text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 3] + "..."
    return f"'{printable(cut)}'"


def did_you_mean(wrong: str, known: Iterable[str]) -> str | None:
    """A hint naming the nearest known word, or else the known words when they are few."""
    words = sorted(known)
    folded = {word.lower(): word for word in words}
    near = difflib.get_close_matches(wrong[:_LONGEST_SHOWN].lower(), folded, n=1, cutoff=0.6)
    if near:
        return f"did you mean {quoted(folded[near[0]])}?"
    if words and len(words) <= 12:
        return "known: " + ", ".join(words)
    return None
