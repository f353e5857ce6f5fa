"""The kinds of values a plan file holds: names, durations, rates, cron expressions, secrets' places.

Invariant: a field refuses what it does not understand, with a hint, and never repeats a value that
could be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any
from zoneinfo import ZoneInfo, available_timezones

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from drctl.domain.phases import PHASES
from drctl.domain.plan import SecretReference
from drctl.domain.units import parse_duration, parse_size
from drctl.errors import UsageError
from drctl.planfile.cron import check_cron
from drctl.planfile.errors import did_you_mean, quoted

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


def refusal(message: str, hint: str | None = None) -> PydanticCustomError:
    """An error pydantic collects; `translate` turns it into a problem with its hint."""
    return PydanticCustomError("plan", "{message}", {"message": message, "hint": hint})


def usable(check: Callable[[str], Any], what: str, example: str) -> Callable[[Any], Any]:
    """A validator out of a function that raises UsageError."""

    def validate(value: Any) -> Any:
        if not isinstance(value, str):
            raise refusal(f"must be {what}", f"for example {example}")
        try:
            return check(value)
        except UsageError as exc:
            raise refusal(exc.message, exc.hint) from exc

    return validate


def _check_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise refusal(f"{quoted(name)} is not a name", "letters, digits, '_', '-' and '.', at most 63")
    return name


def usable_zone(name: str) -> bool:
    """Whether it is an IANA time zone's name this machine knows."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return False
    return True


def _check_zone(name: str) -> str:
    if not usable_zone(name):
        near = did_you_mean(name, available_timezones())
        raise refusal(
            f"unknown time zone {quoted(name)}", near or "use an IANA name such as Europe/Stockholm"
        )
    return name


def _check_phase(name: str) -> str:
    if name not in PHASES:
        raise refusal(f"unknown phase {quoted(name)}", did_you_mean(name, PHASES))
    return name


def _check_absolute(path: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise refusal("not an absolute path", "begin with '/', or with ${HOME}/")
    return path


def _check_duration(text: str) -> timedelta:
    value = parse_duration(text)
    if not value:
        raise UsageError("a duration of nothing", hint="leave the key out for 'none'")
    return value


def _seconds_schema(what: str) -> WithJsonSchema:
    return WithJsonSchema(
        {"type": "string", "pattern": r"^(\s*\d+\s*(s|min|h|d|w))+\s*$", "description": what}
    )


_DURATION_WHAT = "Whole numbers with units s, min, h, d or w, for example 30d, 12h or 1h 30min."
_SIZE_WHAT = "A number with a unit, for example 512KiB, 10MiB or 1.5GB."

Name = Annotated[str, AfterValidator(_check_name), Field(pattern=None)]
TimeZone = Annotated[str, AfterValidator(_check_zone)]
Phase = Annotated[
    str,
    AfterValidator(_check_phase),
    WithJsonSchema({"enum": list(PHASES), "description": "; ".join(f"{k}: {v}" for k, v in PHASES.items())}),
]
AbsolutePath = Annotated[str, AfterValidator(_check_absolute)]
Duration = Annotated[
    timedelta,
    PlainValidator(usable(_check_duration, "a duration", "30d, 12h or 1h 30min")),
    _seconds_schema(_DURATION_WHAT),
]
DurationOrZero = Annotated[
    timedelta,
    PlainValidator(usable(parse_duration, "a duration", "30d, 12h or 1h 30min")),
    _seconds_schema(_DURATION_WHAT),
]
Size = Annotated[
    int,
    PlainValidator(usable(parse_size, "a size", "512KiB, 10MiB or 1.5GB")),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^\d+(\.\d+)?\s*(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)$",
            "description": _SIZE_WHAT,
        }
    ),
]
Cron = Annotated[
    str,
    PlainValidator(usable(check_cron, "a cron expression in quotes", '"30 1 * * *"')),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^\s*\S+(\s+\S+){4}\s*$",
            "description": "minute hour day month weekday, in the plan's time zone, in quotes.",
            "examples": ["30 1 * * *", "*/30 * * * *"],
        }
    ),
]


class Edge(BaseModel):
    """What stands in a file before it is a domain value: unknown keys and guesses are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class SecretPlace(Edge):
    """Where a secret comes from: exactly one of the four. The secret itself never stands in a plan."""

    file: AbsolutePath | None = Field(
        None, description="A file that holds the secret, mode 0600, absolute path."
    )
    # not strict: behind a validator of ours pydantic no longer knows that a list came from JSON
    command: Annotated[tuple[str, ...], Field(strict=False)] | None = Field(
        None, min_length=1, description="A command, as a list of words, whose standard output is the secret."
    )
    environment: str | None = Field(None, min_length=1, description="The name of an environment variable.")
    credential: str | None = Field(None, min_length=1, description="The name of a systemd credential.")


def _refuse_literal(value: Any) -> Any:
    if not isinstance(value, dict):
        raise refusal(
            "a secret must not stand in the plan",
            "say where it is: {file: /etc/drctl/NAME}, {command: [...]}, {environment: NAME}"
            " or {credential: NAME}",
        )
    return value


def _reference(place: SecretPlace) -> SecretReference:
    given = place.model_dump(exclude_none=True)
    if len(given) != 1:
        raise refusal(
            "a secret comes from exactly one place",
            "give one of file, command, environment, credential",
        )
    return SecretReference(**given)


Secret = Annotated[SecretPlace, BeforeValidator(_refuse_literal), AfterValidator(_reference)]
