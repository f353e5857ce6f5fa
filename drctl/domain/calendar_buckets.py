"""Calendar buckets: which hour, day, week, month or year of a wall clock an instant falls in.

Invariant: every instant falls in exactly one bucket of a period. A bucket's key is also the text
people read, so what is counted is what is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from drctl.errors import UsageError

# Keys of local time. The offset keeps the two 02:00 hours of a 25-hour day apart; a week is
# ISO 8601's, whose year (%G) differs from the calendar's around New Year.
PERIODS: Mapping[str, Callable[[datetime], str]] = {
    "hourly": lambda local: f"{local:%Y-%m-%d %H:00 %z}",
    "daily": lambda local: f"{local:%Y-%m-%d}",
    "weekly": lambda local: f"{local:%G-W%V}",
    "monthly": lambda local: f"{local:%Y-%m}",
    "yearly": lambda local: f"{local:%Y}",
}


def zone_named(name: str) -> ZoneInfo:
    """The IANA time zone; UsageError when there is none of that name."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise UsageError(
            f"no such time zone: {name!r}", hint="use an IANA name, for example Europe/Berlin"
        ) from exc
