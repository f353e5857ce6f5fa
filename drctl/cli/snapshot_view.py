"""How a snapshot is shown: one set of fields for programs, columns and lines for people.

Invariant: every command that mentions a snapshot shows it through here.
"""

from __future__ import annotations

from collections.abc import Iterable

from drctl.cli.table import Column, show_cell, show_instant
from drctl.domain.snapshot_facts import Hold
from drctl.domain.units import show_size
from drctl.repository.snapshot import TAG_PREFIX, Snapshot

COLUMNS = (
    Column("short_id", "ID"),
    Column("time", "Time"),
    Column("service", "Service"),
    Column("source", "Source"),
    Column("hostname", "Host"),
    Column("mode", "Mode"),
    Column("complete", "Complete"),
    Column("files", "Files", right=True),
    Column("bytes", "Size", show_size, right=True),
    Column("bytes_stored", "Stored", show_size, right=True),
    Column("holds", "Holds"),
)


_ANY = Column("", "")


def short_id(snapshot: Snapshot) -> str:
    """The id as people copy it: its first eight digits."""
    return snapshot.id.hex()[:8] if snapshot.id is not None else "-"


def snapshot_fields(snapshot: Snapshot, repository: str) -> dict[str, object]:
    """All there is to say about a snapshot; sizes in bytes."""
    summary = snapshot.summary
    return {
        "id": snapshot.id.hex() if snapshot.id is not None else None,
        "short_id": short_id(snapshot),
        "repository": repository,
        "time": snapshot.time,
        "received": snapshot.received,
        "service": snapshot.service,
        "source": snapshot.source,
        "hostname": snapshot.hostname,
        "username": snapshot.username,
        "paths": snapshot.paths,
        "mode": snapshot.mode,
        "complete": snapshot.is_complete,
        "chunker": snapshot.fact("chunker"),
        "parent": snapshot.parent.hex() if snapshot.parent is not None else None,
        "tags": [tag for tag in snapshot.tags if not tag.startswith(TAG_PREFIX)],
        "holds": [hold.name for hold in snapshot.holds],
        "program_version": snapshot.program_version,
        "files": summary.total_files_processed if summary else None,
        "bytes": summary.total_bytes_processed if summary else None,
        "bytes_added": summary.data_added if summary else None,
        "bytes_stored": summary.data_added_packed if summary else None,
        "backup_start": summary.backup_start if summary else None,
        "backup_end": summary.backup_end if summary else None,
    }


def oldest_first(snapshots: Iterable[Snapshot]) -> list[Snapshot]:
    """The order of lists: the newest stands last, next to the prompt."""
    return sorted(snapshots, key=lambda snapshot: snapshot.time)


def describe(snapshot: Snapshot, repository: str) -> list[str]:
    """The lines of `backup show`."""
    fields = snapshot_fields(snapshot, repository)
    sizes = {
        name: show_size(value)
        for name, value in fields.items()
        if name.startswith("bytes") and isinstance(value, int)
    }
    shown = {**fields, **sizes, "holds": [_hold(hold) for hold in snapshot.holds]}
    del shown["short_id"]
    width = max(map(len, shown))
    return [f"{name.replace('_', ' '):<{width}}  {show_cell(_ANY, value)}" for name, value in shown.items()]


def _hold(hold: Hold) -> str:
    until = f"until {show_instant(hold.expires)}" if hold.expires else "until released"
    return f"{hold.name} ({hold.reason}, by {hold.owner}, {until})"
