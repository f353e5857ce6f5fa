"""What retention knows about one snapshot: facts alone, whoever stored it.

Invariant: every instant is UTC, so that differences are elapsed seconds on days of 23 and 25
hours too; one without a zone is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple


class Group(NamedTuple):
    """What is judged together: one source of one service on one host."""

    service: str
    source: str
    host: str

    def __str__(self) -> str:
        return "/".join(self)


@dataclass(frozen=True, slots=True)
class Hold:
    """A named reason that forbids deletion, until it expires (None: until it is released)."""

    name: str
    reason: str
    owner: str
    expires: datetime | None = None

    def __post_init__(self) -> None:
        if self.expires is not None:
            object.__setattr__(self, "expires", utc(self.expires))

    def holds_at(self, now: datetime) -> bool:
        """Whether it is in force at `now`; at its very expiry it no longer is."""
        return self.expires is None or now < self.expires

    def __str__(self) -> str:
        until = "until released" if self.expires is None else f"until {self.expires:%Y-%m-%d %H:%M} UTC"
        return f"held by {self.name} ({self.owner}): {self.reason}, {until}"


@dataclass(frozen=True, slots=True)
class SnapshotFacts:
    """One snapshot, as judged.

    `time` is the recovery point as the backed-up host claims it; `received` is OUR receipt time,
    the only one that orders snapshots and from which ages count. `complete`: nothing of the source
    was left out. `verified`: its bytes were checked. `parent` is the snapshot this one cannot be
    restored without (a WAL or incremental chain); None for one that stands alone, which every
    snapshot of the restic format does, whatever snapshot it was compared with."""

    id: str
    group: Group
    time: datetime
    received: datetime
    complete: bool
    verified: bool
    held_by: tuple[Hold, ...] = ()
    running: bool = False
    being_restored: bool = False
    parent: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "time", utc(self.time))
        object.__setattr__(self, "received", utc(self.received))

    @property
    def short_id(self) -> str:
        """Enough of the id for people, as restic shows it."""
        return self.id[:8]


def utc(instant: datetime) -> datetime:
    """The same instant in UTC; ValueError without a zone: nobody knows which instant it is."""
    if instant.utcoffset() is None:
        raise ValueError(f"an instant without a time zone: {instant.isoformat()}")
    return instant.astimezone(UTC)
