"""Reading instants that people type.

Invariant: what a list shows as a time finds the same snapshot again when it is typed.
"""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

from drctl.errors import UsageError


def read_instant(text: str, time_zone: str) -> datetime:
    """An ISO 8601 instant; without an offset it is one of `time_zone`. Without a fraction it means all of
    its second: lists show times without one, and what they show must find its snapshot again."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as exc:
        raise UsageError(f"not a time: {text!r}", hint='write for example "2026-11-21 18:00"') from exc
    if not instant.microsecond:
        instant = instant.replace(microsecond=999_999)
    return instant if instant.tzinfo is not None else instant.replace(tzinfo=ZoneInfo(time_zone))
