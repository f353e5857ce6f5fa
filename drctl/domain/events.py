"""What workflows say while they work: frozen events that progress, logs and later sinks consume.

Invariant: an event is a fact that happened; no sink can change the course of a workflow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Started:
    """Work began. Totals are None while they are not known, never zero."""

    what: str
    total_files: int | None = None
    total_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Progressed:
    """Work so far, cumulative since `Started`."""

    files: int
    bytes: int
    current: str = ""


@dataclass(frozen=True, slots=True)
class Noticed:
    """Something a person should see; the run goes on."""

    message: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """Work ended."""

    what: str


Event = Started | Progressed | Noticed | Finished
Emit = Callable[[Event], None]


def ignore(_event: Event) -> None:
    """An `Emit` for callers that do not listen."""
