"""Snapshots: the record that makes a tree a recovery point.

Invariant: what drctl must remember of a snapshot lies in its tags, because unknown JSON fields do
not survive a rewrite by restic. A rewrite keeps our receipt time and names its `original`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from urllib.parse import quote, unquote

import orjson

from drctl.domain.snapshot_facts import Hold
from drctl.errors import CorruptError
from drctl.repository.fields import UINT32, mapping, number, optional_text, sequence, text
from drctl.repository.ids import parse_id
from drctl.repository.tree import parse_time_ns

TAG_PREFIX = "drctl."


@dataclass(frozen=True, slots=True)
class Summary:
    """What a backup did, in restic's terms. Bytes and counts."""

    backup_start: datetime
    backup_end: datetime
    files_new: int = 0
    files_changed: int = 0
    files_unmodified: int = 0
    dirs_new: int = 0
    dirs_changed: int = 0
    dirs_unmodified: int = 0
    data_blobs: int = 0
    tree_blobs: int = 0
    data_added: int = 0
    data_added_packed: int = 0
    total_files_processed: int = 0
    total_bytes_processed: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One recovery point. `id` is the hash of the stored file, None before it is stored; `received`
    is the storage's time of that file, our receipt time."""

    time: datetime
    tree: bytes
    paths: tuple[str, ...]
    hostname: str = ""
    username: str = ""
    uid: int = 0
    gid: int = 0
    excludes: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    parent: bytes | None = None
    original: bytes | None = None
    program_version: str = ""
    summary: Summary | None = None
    id: bytes | None = field(default=None, compare=False)
    stored_at: datetime | None = field(default=None, compare=False)

    def fact(self, name: str) -> str | None:
        """The value of drctl's own tag `drctl.NAME=value`; None where there is none."""
        start = f"{TAG_PREFIX}{name}="
        return next((unquote(tag[len(start) :]) for tag in self.tags if tag.startswith(start)), None)

    def with_facts(self, **facts: str | None) -> Snapshot:
        """With drctl's own tags set (a value) or removed (None); other tags stay."""
        starts = tuple(f"{TAG_PREFIX}{name}=" for name in facts)
        kept = [tag for tag in self.tags if not tag.startswith(starts)]
        added = [fact_tag(name, value) for name, value in facts.items() if value is not None]
        return replace(self, tags=tuple(kept + added))

    @property
    def service(self) -> str | None:
        """The service it was made for; None for one that restic made."""
        return self.fact("service")

    @property
    def source(self) -> str | None:
        """The source within the service."""
        return self.fact("source")

    @property
    def mode(self) -> str:
        """`full` or `incremental`; a snapshot of unknown making counts as incremental."""
        return self.fact("mode") or "incremental"

    @property
    def is_complete(self) -> bool:
        """Whether everything in the source was read."""
        return self.fact("state") != "partial"

    @property
    def received(self) -> datetime:
        """Our receipt time. A rewrite or copy carries the first one along in a tag, which is only
        believed when it is not later than the file itself."""
        stored = self.stored_at or self.time
        first = self.fact("received")
        if first is None:
            return stored
        return min(stored, instant(first, "tag drctl.received"))

    @property
    def holds(self) -> tuple[Hold, ...]:
        """The holds on it."""
        start = f"{TAG_PREFIX}hold="
        return tuple(_decode_hold(tag[len(start) :]) for tag in self.tags if tag.startswith(start))

    def with_holds(self, holds: Iterable[Hold]) -> Snapshot:
        """With exactly these holds."""
        start = f"{TAG_PREFIX}hold="
        kept = tuple(tag for tag in self.tags if not tag.startswith(start))
        return replace(self, tags=kept + tuple(start + _encode_hold(hold) for hold in holds))


def fact_tag(name: str, value: str) -> str:
    """The tag that carries a fact; commas and spaces are encoded, as restic splits tags on commas."""
    return f"{TAG_PREFIX}{name}={quote(value, safe='/:+@')}"


def _encode_hold(hold: Hold) -> str:
    expires = time_text(hold.expires) if hold.expires else ""
    return ";".join(quote(part, safe=":") for part in (hold.name, hold.owner, expires, hold.reason))


def _decode_hold(encoded: str) -> Hold:
    parts = [unquote(part) for part in encoded.split(";")]
    if len(parts) != 4:
        raise CorruptError(f"malformed hold tag {encoded[:80]!r}")
    name, owner, expires, reason = parts
    return Hold(name, reason, owner, instant(expires, f"hold {name}") if expires else None)


def instant(moment: str, where: str) -> datetime:
    """An aware UTC datetime (microseconds) of an RFC 3339 text."""
    nanoseconds = parse_time_ns(moment, where)
    seconds, rest = divmod(nanoseconds, 10**9)
    try:
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)
    except (OverflowError, ValueError, OSError) as exc:
        raise CorruptError(f"{where}: time out of range: {moment[:60]!r}") from exc


def time_text(moment: datetime) -> str:
    """RFC 3339, UTC, trailing zeros of the fraction cut, as Go writes it."""
    # not strftime: its %Y has no leading zeros, and Go's zero time is in the year 1
    local = moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
    return local.rstrip("0").rstrip(".") + "Z"


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """The JSON that is stored."""
    fields: dict[str, object] = {"time": time_text(snapshot.time)}
    if snapshot.parent:
        fields["parent"] = snapshot.parent.hex()
    fields |= {"tree": snapshot.tree.hex(), "paths": list(snapshot.paths)}
    optional: dict[str, object] = {
        "hostname": snapshot.hostname,
        "username": snapshot.username,
        "uid": snapshot.uid,
        "gid": snapshot.gid,
        "excludes": list(snapshot.excludes),
        "tags": list(snapshot.tags),
        "original": snapshot.original.hex() if snapshot.original else "",
        "program_version": snapshot.program_version,
    }
    fields |= {name: value for name, value in optional.items() if value}
    if snapshot.summary:
        fields["summary"] = _encode_summary(snapshot.summary)
    return orjson.dumps(fields)


def _encode_summary(summary: Summary) -> dict[str, object]:
    return {
        name: time_text(value) if isinstance(value, datetime) else value
        for name in Summary.__slots__
        for value in [getattr(summary, name)]
    }


def decode_snapshot(json: bytes, where: str) -> Snapshot:
    """Of a snapshot file's JSON; CorruptError naming `where`. Unknown fields are ignored."""
    try:
        raw = mapping(orjson.loads(json))
        summary = raw.get("summary")
        return Snapshot(
            time=instant(text(raw["time"]), where),
            tree=parse_id(raw["tree"], where),
            paths=_texts(raw.get("paths")),
            hostname=optional_text(raw.get("hostname")),
            username=optional_text(raw.get("username")),
            uid=number(raw.get("uid", 0), UINT32),
            gid=number(raw.get("gid", 0), UINT32),
            excludes=_texts(raw.get("excludes")),
            tags=_texts(raw.get("tags")),
            parent=parse_id(raw["parent"], where) if raw.get("parent") else None,
            original=parse_id(raw["original"], where) if raw.get("original") else None,
            program_version=optional_text(raw.get("program_version")),
            summary=_decode_summary(mapping(summary), where) if summary else None,
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as exc:
        raise CorruptError(f"{where}: malformed snapshot: {exc}") from exc


def _decode_summary(raw: dict[str, object], where: str) -> Summary:
    counts = {name: number(raw[name]) for name in Summary.__slots__[2:] if name in raw}
    return Summary(
        backup_start=instant(text(raw["backup_start"]), where),
        backup_end=instant(text(raw["backup_end"]), where),
        **counts,
    )


def _texts(value: object) -> tuple[str, ...]:
    return tuple(map(text, sequence(value)))
