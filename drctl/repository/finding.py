"""What a check finds: frozen values, each naming the file it is about.

Invariant: a finding is one line, and only an ERROR means that something cannot be restored or is
not what was stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from drctl.errors import DrctlError


class Severity(Enum):
    """How bad it is."""

    NOTE = "note"  # nothing to do at once: left over, wasteful or foreign
    ERROR = "error"  # damage: exit code 30


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found. `file` is a storage key, or names what has no file (a blob in no index)."""

    severity: Severity
    file: str
    what: str
    hint: str | None = None

    @property
    def line(self) -> str:
        """For people: one line, whatever a hostile file put into a message."""
        return " ".join(f"{self.severity.value}: {self.file}: {self.what}".split())


def damage(file: str, what: str, hint: str | None = None) -> Finding:
    """An ERROR."""
    return Finding(Severity.ERROR, file, what, hint)


def note(file: str, what: str, hint: str | None = None) -> Finding:
    """A NOTE."""
    return Finding(Severity.NOTE, file, what, hint)


def damage_from(file: str, error: DrctlError) -> Finding:
    """An ERROR out of an error met while reading `file`."""
    return damage(file, error.message.removeprefix(f"{file}: "), error.hint)
