"""Gitignore patterns over the whole file system: which entries of a directory are left out.

Invariant: the last pattern that matches an entry decides (`!` keeps it), as gitignore(5) says,
with `/` as the place of the ignore file: a pattern with a leading or inner slash is an absolute
path. What is named as a root is never left out by a pattern for it or for a directory above it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from drctl.ports import Entry


@dataclass(frozen=True, slots=True)
class _Run:
    """Neighbouring patterns of one kind, as one expression for directories and one for the rest."""

    excludes: bool
    directories: re.Pattern[str]
    others: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class _Pattern:
    excludes: bool
    only_directories: bool
    expression: str


class Excludes:
    """Compiled patterns. Paths are matched as text decoded with `surrogateescape`, so that `?` is
    one character of a name rather than one byte of it (git's is a byte)."""

    def __init__(self, lines: Iterable[str]) -> None:
        """ValueError for a line that cannot match: an open bracket, a lone `/` or `!`, and
        `[[:alpha:]]`, which pathspec does not know."""
        patterns = [pattern for pattern in map(_parse, lines) if pattern is not None]
        # last first: the first run that matches decides
        self._runs = [
            _Run(
                excludes,
                _any_of(pattern.expression for pattern in run),
                _any_of(pattern.expression for pattern in run if not pattern.only_directories),
            )
            for excludes, run in (
                (key, list(run)) for key, run in groupby(reversed(patterns), lambda p: p.excludes)
            )
        ]

    def __bool__(self) -> bool:
        return any(run.excludes for run in self._runs)

    def leaves_out(self, path: bytes, *, is_directory: bool) -> bool:
        """Whether this absolute path itself is excluded; what lies above it is the caller's walk."""
        return self._decide(os.fsdecode(path.lstrip(b"/")), is_directory=is_directory)

    def keep(self, directory: bytes, entries: Iterable[Entry]) -> list[Entry]:
        """The entries of `directory` that are not excluded, in their order."""
        prefix = os.fsdecode(directory.strip(b"/") + b"/").lstrip("/")
        return [
            entry
            for entry in entries
            if not self._decide(prefix + os.fsdecode(entry.name), is_directory=stat.S_ISDIR(entry.mode))
        ]

    def _decide(self, path: str, *, is_directory: bool) -> bool:
        for run in self._runs:
            expression = run.directories if is_directory else run.others
            if expression.fullmatch(path):
                return run.excludes
        return False


def _any_of(expressions: Iterable[str]) -> re.Pattern[str]:
    # DOTALL: a newline in a name is a character like any other
    return re.compile("|".join(f"(?:{text})" for text in expressions) or r"(?!)", re.DOTALL)


def _parse(line: str) -> _Pattern | None:
    """pathspec translates the glob; which directories it is for, and that it must match the entry
    itself rather than something above it, is decided here."""
    from pathspec.patterns.gitignore.base import GitIgnorePatternError
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

    text = line.rstrip("\r\n")
    text = text if text.endswith("\\ ") else text.rstrip(" ")
    if not text or text.startswith("#"):
        return None
    if "[[:" in text:
        raise ValueError(f"character classes like [[:alpha:]] are not known: {text!r}")
    only_directories = text.endswith("/")
    body = text.removesuffix("/")
    if body.endswith("/**"):  # "everything inside", never the directory itself
        body += "/*"
    try:
        expression, excludes = GitIgnoreSpecPattern.pattern_to_regex(body)
        re.compile(expression or "")
    except (GitIgnorePatternError, re.error):
        expression = None
    # git ignores what it cannot read; in a plan it is a slip that would store what was not meant
    if expression is None or excludes is None:
        raise ValueError(f"not a pattern that matches anything: {text!r}")
    if expression == ".":  # how pathspec writes "whatever there is"
        expression = ".+"
    expression = expression.replace("(?:(?P<ps_d>/)|$)", "").replace("(?P<ps_d>/)", "/")
    return _Pattern(excludes, only_directories, expression)
