"""drctl's values as JSON has them.

Invariant: nothing is lost or guessed: instants are RFC 3339 in UTC, sizes stay integers, a name
that is not UTF-8 comes with its exact bytes; a value of an unknown kind is an error, never a repr.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from os import PathLike, fsencode, fspath

from drctl.cli.escaping import inert_name


def json_fields(values: Mapping[str, object]) -> dict[str, object]:
    """A JSON object. A value under `key` that is (or lists) bytes which are not UTF-8 is shown
    escaped, and `key_base64` holds the exact bytes."""
    document: dict[str, object] = {}
    for key, value in values.items():
        document[key] = json_value(value)
        exact = _base64(value)
        if exact is not None:
            document[f"{key}_base64"] = exact
    return document


def json_value(value: object) -> object:
    """One value; TypeError for a kind that has no agreed form, ValueError for a naive datetime."""
    match value:
        case Enum():
            return json_value(value.value)
        case None | bool() | int() | float():
            return value
        case str() | bytes() | PathLike():
            return _text(value)
        case datetime():
            return rfc3339(value)
        case timedelta():
            return value.total_seconds()
        case Mapping():
            return json_fields({str(key): inner for key, inner in value.items()})
        case list() | tuple():
            return [json_value(item) for item in value]
        case set() | frozenset():
            return sorted(json_value(item) for item in value)  # type: ignore[type-var]
    if is_dataclass(value) and not isinstance(value, type):
        return json_fields({field.name: getattr(value, field.name) for field in fields(value)})
    raise TypeError(f"no JSON form agreed for {type(value).__name__}")


def rfc3339(value: datetime) -> str:
    """RFC 3339 section 5.6 in UTC, with as many fraction digits as needed: `2026-11-22T01:46:49Z`."""
    if value.tzinfo is None:
        raise ValueError("an instant without a time zone is not an instant")
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _raw(value: object) -> bytes | None:
    """The bytes of a name (text with surrogate escapes is one too); None for other values."""
    if isinstance(value, str | PathLike):
        value = fsencode(fspath(value))
    return value if isinstance(value, bytes) else None


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _text(value: str | bytes | PathLike[str]) -> str:
    raw = _raw(value)
    assert raw is not None, "the caller matched a name"
    return raw.decode("utf-8") if _is_utf8(raw) else inert_name(raw)


def _base64(value: object) -> object:
    items = value if isinstance(value, list | tuple) else [value]
    raws = [raw for item in items if (raw := _raw(item)) is not None]
    if len(raws) != len(items) or all(_is_utf8(raw) for raw in raws):
        return None
    exact = [b64encode(raw).decode("ascii") for raw in raws]
    return exact if items is value else exact[0]
