"""Snapshots: every record survives its JSON; facts and holds survive as tags."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drctl.domain.retention import Hold
from drctl.errors import CorruptError
from drctl.repository.snapshot import (
    Snapshot,
    Summary,
    decode_snapshot,
    encode_snapshot,
    instant,
    time_text,
)

IDS = st.binary(min_size=32, max_size=32)
MOMENTS = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=st.just(UTC))
# lone surrogates are no UTF-8, so JSON cannot carry them
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
COUNTS = st.integers(0, 2**63)
LISTS = st.lists(TEXTS, max_size=3).map(tuple)
SUMMARIES = st.builds(Summary, MOMENTS, MOMENTS, *([COUNTS] * 12))
HOLDS = st.builds(Hold, TEXTS, TEXTS, TEXTS, st.none() | MOMENTS)
SNAPSHOTS = st.builds(
    Snapshot,
    time=MOMENTS,
    tree=IDS,
    paths=LISTS,
    hostname=TEXTS,
    username=TEXTS,
    uid=st.integers(0, 2**32 - 1),
    gid=st.integers(0, 2**32 - 1),
    excludes=LISTS,
    tags=LISTS,
    parent=st.none() | IDS,
    original=st.none() | IDS,
    program_version=TEXTS,
    summary=st.none() | SUMMARIES,
)
NOW = datetime(2026, 11, 22, 1, 2, 3, 450_000, tzinfo=UTC)
PLAIN = Snapshot(NOW, b"t" * 32, ("/etc",))


@given(SNAPSHOTS)
def test_a_snapshot_that_was_written_is_read_back_the_same(snapshot: Snapshot) -> None:
    assert decode_snapshot(encode_snapshot(snapshot), "here") == snapshot


@given(st.lists(HOLDS, max_size=3), LISTS)
def test_holds_survive_as_tags_and_leave_other_tags_alone(holds: list[Hold], tags: tuple[str, ...]) -> None:
    tags = tuple(tag for tag in tags if not tag.startswith("drctl."))
    snapshot = Snapshot(NOW, b"t" * 32, (), tags=tags).with_holds(holds)
    again = decode_snapshot(encode_snapshot(snapshot), "here")
    assert again.holds == tuple(holds)
    assert again.with_holds([]).tags == tags
    assert not any("," in tag or " " in tag for tag in again.tags[len(tags) :])


@given(TEXTS, TEXTS, LISTS)
def test_facts_survive_as_tags_that_restic_does_not_split(
    value: str, other: str, tags: tuple[str, ...]
) -> None:
    snapshot = Snapshot(NOW, b"t" * 32, (), tags=("drctl.service=old", "mine"))
    changed = snapshot.with_facts(service=value, source=other)
    assert (changed.service, changed.source) == (value, other)
    assert changed.tags[0] == "mine"
    assert all("," not in tag and " " not in tag for tag in changed.tags)
    assert changed.with_facts(service=None).service is None


@given(MOMENTS)
def test_an_instant_survives_its_text(moment: datetime) -> None:
    assert instant(time_text(moment), "here") == moment


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00Z"),
        (datetime(2026, 1, 2, 3, 4, 5, 600_000, tzinfo=UTC), "2026-01-02T03:04:05.6Z"),
        (datetime(2026, 1, 2, 3, 4, 50, tzinfo=UTC), "2026-01-02T03:04:50Z"),
        (datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=2))), "2025-12-31T22:00:00Z"),
    ],
)
def test_times_are_written_as_go_writes_them_in_utc(moment: datetime, text: str) -> None:
    assert time_text(moment) == text


def test_nanoseconds_of_restic_are_cut_to_microseconds() -> None:
    assert instant("2026-01-01T00:00:00.123456789+01:00", "here") == datetime(
        2025, 12, 31, 23, 0, 0, 123_456, tzinfo=UTC
    )


def test_a_receipt_tag_is_believed_only_when_it_is_not_later_than_the_file() -> None:
    def received(tag: datetime) -> datetime:
        tagged = PLAIN.with_facts(received=time_text(tag))
        return Snapshot(
            **{**{name: getattr(tagged, name) for name in Snapshot.__slots__}, "stored_at": NOW}
        ).received

    assert received(NOW - timedelta(days=3)) == NOW - timedelta(days=3)
    assert received(NOW + timedelta(days=3)) == NOW


DEEP = b"[" * 1010 + b"]" * 1010
GOOD = orjson.loads(encode_snapshot(PLAIN))


def snapshot_with(**change: object) -> bytes:
    """A snapshot that is good but for the change."""
    change = {key: "DEEP" if value is DEEP else value for key, value in change.items()}
    return orjson.dumps({**GOOD, **change}).replace(b'"DEEP"', DEEP)


@pytest.mark.parametrize(
    "json",
    [b"", b"null", b"[]", b"{}", b'"text"', b"5", b"\xff", b"[" * 50_000, b'{"time":NaN}',
     *(snapshot_with(time=value) for value in (None, 5, "", "yesterday", "0000-01-01T00:00:00Z", DEEP)),
     *(snapshot_with(tree=value) for value in (None, 5, "", "abc", "A" * 64, "a" * 63, "a" * 65, DEEP)),
     snapshot_with(tree="a" * 64 + "\n"),
     *(snapshot_with(paths=value) for value in (5, "x", [5], {"a": 1}, ["DEEP"], DEEP)),
     *(snapshot_with(tags=value) for value in (5, "x", [None])),
     *(snapshot_with(uid=value) for value in (-1, 2**32, 1e30, "0", DEEP)),
     *(snapshot_with(hostname=value) for value in (5, ["x"], DEEP)),
     *(snapshot_with(parent=value) for value in (5, "abc", ["x"], DEEP)),
     *(snapshot_with(summary=value) for value in (5, "x", {"a": 1}, [1])),
     snapshot_with(summary={"backup_start": 5, "backup_end": 5}),
     snapshot_with(summary={"backup_start": "2026-01-01T00:00:00Z", "backup_end": "2026-01-01T00:00:00Z",
                            "files_new": -1})],
)  # fmt: skip
def test_a_malformed_snapshot_is_corrupt_and_nothing_else(json: bytes) -> None:
    with pytest.raises(CorruptError, match="snapshots/ab") as caught:
        decode_snapshot(json, "snapshots/ab")
    assert len(caught.value.message) < 300


def test_null_where_go_writes_null_is_empty() -> None:
    snapshot = decode_snapshot(
        snapshot_with(paths=None, tags=None, hostname=None, summary=None, new={}), "here"
    )
    assert (snapshot.paths, snapshot.tags, snapshot.hostname, snapshot.summary) == ((), (), "", None)


@pytest.mark.parametrize(
    "tag", ["drctl.hold=", "drctl.hold=a;b", "drctl.hold=a;b;c;d;e", "drctl.hold=a;b;never;d"]
)
def test_a_malformed_hold_is_corrupt_and_never_no_hold(tag: str) -> None:
    with pytest.raises(CorruptError):
        _ = Snapshot(NOW, b"t" * 32, (), tags=(tag,)).holds
