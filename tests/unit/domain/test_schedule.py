"""How far apart a cron expression's firings can be."""

from __future__ import annotations

from datetime import timedelta

import pytest

from drctl.domain.schedule import worst_interval
from drctl.errors import UsageError

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("cron", "zone", "expected"),
    [
        ("0 3 * * *", "UTC", DAY),
        ("0 0 * * *", "UTC", DAY),
        ("0 3 * * *", "Europe/Berlin", 25 * HOUR),
        ("0 0 * * *", "Europe/Berlin", 25 * HOUR),
        ("30 2 * * *", "Europe/Berlin", 25 * HOUR),
        ("0 3 * * 0", "Europe/Berlin", 7 * DAY + HOUR),
        ("0 3 * * 1-5", "UTC", 3 * DAY),
        ("0 1 1 * *", "UTC", 31 * DAY),
        ("0 1 1 * *", "Europe/Berlin", 31 * DAY + HOUR),
        ("0 1 31 * *", "UTC", 61 * DAY),
        ("0 0 29 2 *", "UTC", 1461 * DAY),
        ("*/15 * * * *", "Europe/Berlin", timedelta(minutes=15)),
        ("0 */6 * * *", "UTC", 6 * HOUR),
        ("0 8,12,16 * * *", "UTC", 16 * HOUR),
        ("0 8,12,16 * * *", "Europe/Berlin", 17 * HOUR),
        ("0 2,14 * * *", "America/New_York", 13 * HOUR),
        ("*/5 * 1 1 *", "UTC", 365 * DAY + timedelta(minutes=5)),
    ],
)
def test_the_worst_interval_counts_elapsed_hours_over_the_changes_of_the_clock(
    cron: str, zone: str, expected: timedelta
) -> None:
    assert worst_interval(cron, zone) == expected


def test_a_minutely_job_is_judged_quickly_and_has_no_gap_in_the_doubled_hour() -> None:
    assert worst_interval("* * * * *", "Europe/Berlin") == timedelta(minutes=1)


@pytest.mark.parametrize(
    ("cron", "zone", "message"),
    [
        ("0 25 * * *", "UTC", "not a cron expression: '0 25 * * *'"),
        ("nightly", "UTC", "not a cron expression: 'nightly'"),
        ("0 0 30 2 *", "UTC", "cron expression never fires: '0 0 30 2 *'"),
        ("0 3 * * *", "Europe/Berlim", "no such time zone: 'Europe/Berlim'"),
        ("0 3 * * *", "../etc/passwd", "no such time zone: '../etc/passwd'"),
    ],
)
def test_what_is_no_cron_expression_or_zone_is_a_usage_error(cron: str, zone: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        worst_interval(cron, zone)
    assert caught.value.message == message
