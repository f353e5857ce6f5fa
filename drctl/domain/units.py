"""Sizes, rates and durations: parsed strictly, shown for people.

Invariant: `parse_x(show_x(value))` is within the shown precision, and a number without a unit
is refused where a unit is needed.
"""

from __future__ import annotations

import re
from datetime import timedelta

from drctl.errors import UsageError

_DURATION_UNITS_S = {"s": 1, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"(\d+)\s*(s|min|h|d|w)")
_SIZE_UNITS = {
    "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)")


def parse_duration(text: str) -> timedelta:
    """`30d`, `1h 30min`, `90s`: whole numbers with a unit (s, min, h, d, w). `m` is refused: it is
    read as minutes by some and months by others."""
    compact = text.strip()
    matches = list(_DURATION.finditer(compact))
    if not matches or _DURATION.sub("", compact).strip():
        raise UsageError(f"not a duration: {text!r}", hint="write for example 30d, 12h, 1h 30min or 90s")
    try:
        return timedelta(seconds=sum(int(m[1]) * _DURATION_UNITS_S[m[2]] for m in matches))
    except OverflowError as exc:
        raise UsageError(f"duration too long: {text!r}") from exc


def show_duration(value: timedelta) -> str:
    """The shortest exact form that `parse_duration` reads, to the second."""
    seconds = int(value.total_seconds())
    parts = []
    for unit in ("d", "h", "min", "s"):
        count, seconds = divmod(seconds, _DURATION_UNITS_S[unit])
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts) or "0s"


def parse_size(text: str) -> int:
    """`10MiB`, `1.5GB`, `512B` in bytes. A bare number is refused."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"not a size: {text!r}", hint="write for example 512KiB, 10MiB or 1.5GB")
    return int(float(match[1]) * _SIZE_UNITS[match[2]])


def show_size(count_bytes: float) -> str:
    """Three significant figures with a binary unit, for people; machines get integer bytes."""
    value = float(count_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return (
                f"{value:.0f} {unit}"
                if unit == "B"
                else f"{value:.3g} {unit}"
                if value < 1000
                else f"{value:.0f} {unit}"
            )
        value /= 1024
    return f"{value:.3g} TiB"
