"""A clock that a test moves by hand.

Invariant: time passes only by `sleep` and `advance`; sleeping takes no real time.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta


class FakeClock:
    """`ports.Clock`; the calendar and the monotonic time can be moved apart, as on a host whose
    clock is set while it runs."""

    def __init__(self, now: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = now
        self._monotonic = 1000.0
        self._lock = threading.Lock()
        self.slept: list[float] = []

    def now(self) -> datetime:
        """The instant, aware, UTC."""
        with self._lock:
            return self._now

    def monotonic(self) -> float:
        """Seconds since some time ago."""
        with self._lock:
            return self._monotonic

    def sleep(self, seconds: float) -> None:
        """Let so many seconds pass at once."""
        with self._lock:
            self.slept.append(seconds)
        self.advance(timedelta(seconds=seconds))

    def advance(self, by: timedelta) -> None:
        """Let time pass."""
        with self._lock:
            self._now += by
            self._monotonic += by.total_seconds()

    def set_calendar(self, now: datetime) -> None:
        """Set the calendar alone, forwards or back: what NTP or an operator does."""
        with self._lock:
            self._now = now
