"""How a snapshot is shown: one set of fields for programs, columns and lines for people.

Invariant: every command that mentions a snapshot shows it through here.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from datetime import UTC, datetime

from drctl.cli.table import Column, show_cell, show_instant
from drctl.domain.snapshot_facts import Hold
from drctl.domain.units import show_size
from drctl.repository.snapshot import TAG_PREFIX, Snapshot
from drctl.repository.tree import Node

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


def entry_fields(node: Node) -> dict[str, object]:
    """What is known of one entry of a snapshot; times in UTC, sizes in bytes."""
    return {
        "type": node.type,
        "mode": stat.filemode(node.mode),
        "uid": node.uid,
        "gid": node.gid,
        "user": node.user,
        "group": node.group,
        "size": node.size if node.type == "file" else None,
        "mtime": _instant(node.mtime_ns),
        "link_target": node.link_target or None,
    }


def entry_line(path: bytes, node: Node) -> str:
    """The same for people, as `ls -l` has it."""
    owner = f"{node.user or node.uid} {node.group or node.gid}"
    size = node.size if node.type == "file" else 0
    when = show_cell(_ANY, _instant(node.mtime_ns))
    name = os.fsdecode(path) + (f" -> {os.fsdecode(node.link_target)}" if node.link_target else "")
    return f"{stat.filemode(node.mode)}  {owner:<16} {size:>14,}  {when}  {name}"


def _instant(nanoseconds: int) -> datetime | None:
    try:
        return datetime.fromtimestamp(nanoseconds // 10**9, UTC)
    except (OverflowError, ValueError):  # a file may claim any time; the calendar ends in year 9999
        return None


def _hold(hold: Hold) -> str:
    until = f"until {show_instant(hold.expires)}" if hold.expires else "until released"
    return f"{hold.name} ({hold.reason}, by {hold.owner}, {until})"
