"""Cron expressions on a wall clock: how far apart two firings can be.

Invariant: intervals are elapsed seconds, so a day of 25 hours is 25 hours long; a job at a fixed
hour fires once a day, also where the wall clock shows that hour twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain, pairwise
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from drctl.domain.calendar_buckets import zone_named
from drctl.errors import UsageError

if TYPE_CHECKING:
    from croniter import croniter

# Any fixed span will do that holds a leap day and both changes of the clock several times: the
# answer must not depend on the day the plan is checked.
_FROM = datetime(2026, 1, 1)  # noqa: DTZ001  a wall-clock time, put into the plan's zone
_YEARS = timedelta(days=9 * 366)
_MOST_CROSSINGS = 400


@lru_cache(maxsize=256)
def worst_interval(cron: str, time_zone: str) -> timedelta:
    """The longest elapsed time between two successive firings of `cron` in `time_zone` (an IANA
    name): 25 h for `0 3 * * *` in Europe/Berlin, whose October has a day of 25 hours.

    UsageError for what is no cron expression, never fires, or no zone."""
    zone = zone_named(time_zone)
    wall_clock = _WallClock(_parsed(cron, zone), zone, once_a_day=_has_fixed_hour(cron))
    return max(chain(wall_clock.gaps_over_midnight(), wall_clock.gaps_within_days()))


@dataclass(frozen=True, slots=True)
class _WallClock:
    """The firings of one expression in one zone."""

    firings: croniter
    zone: ZoneInfo
    once_a_day: bool

    def gaps_over_midnight(self) -> Iterator[timedelta]:
        """Every gap that spans a midnight is seen from the first midnight in it; the next one to
        look at lies after the gap's end. So sparse expressions are as cheap as daily ones."""
        midnight = _FROM
        for _ in range(_MOST_CROSSINGS):
            before, after = self._before(midnight), self._at_or_after(midnight)
            yield after.astimezone(UTC) - before.astimezone(UTC)
            midnight = _midnight(after) + timedelta(days=1)
            if midnight > _FROM + _YEARS:
                return

    def gaps_within_days(self) -> Iterator[timedelta]:
        """Minutes and hours do not depend on the date: one day that fires stands for all, but for
        the days on which the zone's offset changes."""
        for day in {_midnight(self._at_or_after(_FROM)), *self._days_of_change()}:
            instants = [fired.astimezone(UTC) for fired in self._on(day)]
            for earlier, later in pairwise(instants):
                yield later - earlier

    def _days_of_change(self) -> Iterator[datetime]:
        for number in range(366):
            day = _FROM + timedelta(days=number)
            if self._offset(day) != self._offset(day + timedelta(days=1)):
                yield day

    def _offset(self, day: datetime) -> timedelta | None:
        return day.replace(tzinfo=self.zone).utcoffset()

    def _on(self, day: datetime) -> Iterator[datetime]:
        fired = self._at_or_after(day)
        while _midnight(fired) == day:
            yield fired
            fired = self._next(fired)

    def _at_or_after(self, midnight: datetime) -> datetime:
        return self._next(midnight.replace(tzinfo=self.zone) - timedelta(seconds=1))

    def _next(self, moment: datetime) -> datetime:
        while True:
            moment = self.firings.get_next(datetime, start_time=moment)
            if self._counts(moment):
                return moment

    def _before(self, midnight: datetime) -> datetime:
        moment = midnight.replace(tzinfo=self.zone)
        while True:
            moment = self.firings.get_prev(datetime, start_time=moment)
            if self._counts(moment):
                return moment

    def _counts(self, fired: datetime) -> bool:
        # croniter fires `30 2 * * *` twice on the day the clock goes back; a job runs once.
        # its get_prev marks every result as folded: only the way through UTC tells
        return not (self.once_a_day and fired.astimezone(UTC).astimezone(self.zone).fold)


def _midnight(moment: datetime) -> datetime:
    """The wall-clock start of its local day, without a zone."""
    return moment.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None, fold=0)


def _has_fixed_hour(cron: str) -> bool:
    fields = cron.split()
    return len(fields) > 1 and not fields[1].startswith("*")


def _parsed(cron: str, zone: ZoneInfo) -> croniter:
    from croniter import CroniterBadDateError, CroniterError, croniter

    try:
        firings = croniter(cron, _FROM.replace(tzinfo=zone))
        firings.get_next(datetime)
    except CroniterBadDateError as exc:
        raise UsageError(f"cron expression never fires: {cron!r}") from exc
    except (CroniterError, ValueError) as exc:
        raise UsageError(
            f"not a cron expression: {cron!r}", hint="for example 0 2 * * *: daily at 02:00"
        ) from exc
    return firings
