"""Cron expressions as a plan may hold them: five fields and nothing an implementation added.

Invariant: what passes fires, and means the same to every cron.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from croniter import croniter

from drctl.errors import UsageError

_NUMBERS = re.compile(r"[0-9*/,-]{1,200}")
_DAYS = re.compile(r"(?:[0-9*/,-]|L\b){1,200}")
_NAMES = re.compile(r"(?:[0-9*/,-]|[A-Za-z]{3}){1,200}")
_FIELDS = (_NUMBERS, _NUMBERS, _DAYS, _NAMES, _NAMES)
# any instant will do: whether an expression is valid does not depend on the day it is checked
_ANY_TIME = datetime(2024, 1, 1, tzinfo=UTC)
_HINT = 'write "minute hour day month weekday", for example "30 1 * * *"'


def check_cron(expression: str) -> str:
    """The expression with single blanks. UsageError unless it is five valid fields that fire; croniter
    alone would take seconds, years, `@reboot`, `H` and `R` as well."""
    fields = expression.split()
    if len(fields) != 5:
        raise UsageError(f"a cron expression has five fields, not {len(fields)}", hint=_HINT)
    for field, pattern in zip(fields, _FIELDS, strict=True):
        if not pattern.fullmatch(field):
            raise UsageError(f"not a cron field: {field[:60]!r}", hint=_HINT)
    joined = " ".join(fields)
    try:
        croniter(joined, _ANY_TIME).get_next(datetime)
    except (ValueError, LookupError, TypeError, AttributeError) as exc:  # croniter leaks the latter three
        raise UsageError(f"not a cron expression: {joined!r}", hint=_HINT) from exc
    return joined
