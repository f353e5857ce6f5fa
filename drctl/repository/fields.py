"""Typed reading of foreign JSON: a value is what it must be, or it is refused in a few words.

Invariant: a message never renders a list or object: it may be endless, or nested deeper than
Python can render (orjson reads 1024 levels, repr gives up at 1000).
"""

from __future__ import annotations

UINT32 = 2**32
UINT64 = 2**64


def brief(value: object) -> str:
    """A value as a message may quote it."""
    if value is None or isinstance(value, (str, int, float)):
        return repr(value[:80] if isinstance(value, str) else value)
    return f"a {type(value).__name__}"


def text(value: object) -> str:
    """TypeError unless it is a text."""
    if not isinstance(value, str):
        raise TypeError(f"{brief(value)} is not a text")
    return value


def optional_text(value: object) -> str:
    """A text; empty where it is missing or null, as Go reads it."""
    return "" if value is None else text(value)


def number(value: object, below: int = UINT64) -> int:
    """TypeError unless it is a whole number from 0 up to, not including, `below`."""
    if type(value) is not int or not 0 <= value < below:
        raise TypeError(f"{brief(value)} is not a whole number from 0 to {below - 1}")
    return value


def sequence(value: object) -> list[object]:
    """A list; empty for null, as Go writes an empty one. TypeError for anything else."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise TypeError(f"{brief(value)} is not a list")
    return value


def mapping(value: object) -> dict[str, object]:
    """TypeError unless it is an object."""
    if not isinstance(value, dict):
        raise TypeError(f"{brief(value)} is not an object")
    return value
