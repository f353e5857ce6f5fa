"""Trees: names, times and nodes survive, whatever they are; what is malformed is refused."""

from __future__ import annotations

import stat
import time

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drctl.errors import CorruptError
from drctl.ports import Entry
from drctl.repository.archive_job import LocalTimeText
from drctl.repository.tree import (
    decode_tree,
    join_tree,
    parse_time_ns,
    quote_name,
    render_node,
    unquote_name,
)

NAME_BYTES = st.binary(min_size=1, max_size=60) | st.text(min_size=1, max_size=30).map(
    lambda text: text.encode("utf-8", "surrogatepass")
)
ENTRY_NAMES = NAME_BYTES.filter(lambda name: name not in (b".", b"..") and not {0, 0x2F} & set(name))
KINDS = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFBLK, stat.S_IFCHR, stat.S_IFIFO)
UNSIGNED = st.integers(0, 2**64 - 1)
OWNERS = st.integers(0, 2**32 - 1)
TIMES = st.integers(-62_135_596_800 * 10**9 + 86_400 * 10**9, 253_402_300_799 * 10**9 - 86_400 * 10**9)
IDS = st.binary(min_size=32, max_size=32)


def utc_text(nanoseconds: int) -> str:
    """RFC 3339 in UTC, whatever TZ is."""
    seconds, fraction = divmod(nanoseconds, 10**9)
    local = time.gmtime(seconds)
    return f"{local.tm_year:04d}-" + time.strftime("%m-%dT%H:%M:%S", local) + f".{fraction:09d}Z"


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    return Entry(
        name=draw(ENTRY_NAMES),
        mode=draw(st.sampled_from(KINDS)) | draw(st.integers(0, 0o7777)),
        size=draw(UNSIGNED),
        mtime_ns=draw(TIMES),
        ctime_ns=draw(TIMES),
        inode=draw(UNSIGNED),
        device=draw(UNSIGNED),
        links=draw(UNSIGNED),
        uid=draw(OWNERS),
        gid=draw(OWNERS),
        rdev=draw(UNSIGNED),
    )


@given(ENTRY_NAMES)
def test_any_name_of_a_directory_entry_survives_quoting(name: bytes) -> None:
    quoted = orjson.loads(f'"{quote_name(name)}"'.encode())
    assert unquote_name(quoted, "here") == name


@given(
    entries(),
    st.lists(IDS, max_size=3),
    st.none() | IDS,
    st.binary(max_size=40).filter(lambda target: b"\0" not in target),
    st.lists(
        st.tuples(st.text(min_size=1, max_size=9).map(str.encode), st.binary(max_size=9)).filter(
            lambda pair: b"\0" not in pair[0]
        ),
        max_size=3,
    ),
    st.text(max_size=9),
)
def test_a_node_that_was_written_is_read_back_the_same(
    entry: Entry,
    content: list[bytes],
    subtree: bytes | None,
    target: bytes,
    attributes: list[tuple[bytes, bytes]],
    owner: str,
) -> None:
    kind = stat.S_IFMT(entry.mode)
    text = render_node(
        entry,
        utc_text,
        (owner, owner),
        content=[blob.hex() for blob in content],
        subtree=subtree.hex() if subtree else None,
        link_target=target if kind == stat.S_IFLNK else None,
        extended_attributes=attributes,
    )
    (node,) = decode_tree(join_tree([text]), "here")

    assert (node.name, node.mode, node.uid, node.gid) == (entry.name, entry.mode, entry.uid, entry.gid)
    assert (node.mtime_ns, node.atime_ns, node.ctime_ns) == (entry.mtime_ns, entry.mtime_ns, entry.ctime_ns)
    assert (node.user, node.group, node.inode) == (owner, owner, entry.inode)
    assert (node.device_id, node.subtree) == (entry.device, subtree)
    assert node.extended_attributes == tuple(attributes)
    if kind == stat.S_IFREG:
        assert (node.size, node.links, node.content) == (entry.size, entry.links, tuple(content))
    if kind == stat.S_IFLNK:
        assert (node.link_target, node.links) == (target, entry.links)
    if kind in (stat.S_IFBLK, stat.S_IFCHR):
        assert node.device == entry.rdev


@pytest.mark.parametrize(
    "zone", ["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns", "Africa/Monrovia"]
)
def test_a_time_written_in_any_zone_is_the_same_instant(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        text = LocalTimeText()
        for year in range(100, 9900, 7):
            for fraction in (0, 1, 999_999_999, 120_000_000):
                nanoseconds = ((year - 1970) * 31_556_952 + 12_345_678) * 10**9 + fraction
                assert parse_time_ns(text(nanoseconds)) == nanoseconds, text(nanoseconds)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1969-12-31T23:59:59.999999999Z", -1),
        ("2026-03-29T03:00:00+02:00", 1_774_746_000 * 10**9),
        ("2026-10-25T02:30:00.5+01:00", 1_792_891_800 * 10**9 + 500_000_000),
        ("0001-01-01T00:00:00Z", -62_135_596_800 * 10**9),
        ("0000-01-01T00:00:00Z", -62_167_219_200 * 10**9),
        ("9999-12-31T23:59:59Z", 253_402_300_799 * 10**9),
    ],
)
def test_times_of_rfc_3339_are_read_to_the_nanosecond(text: str, nanoseconds: int) -> None:
    assert parse_time_ns(text) == nanoseconds


@pytest.mark.parametrize(
    "text",
    ["", "2026-01-01", "2026-13-01T00:00:00Z", "2026-01-01T00:00:00", "2026-01-01T24:00:01Z",
     "2026-01-01T00:00:00.1234567890Z", "2026-01-01T00:00:00+99:99",
     "\u0662\u0660\u0662\u0666-01-01T00:00:00Z", "2026-01-01T00:00:00Z\n", "99999-01-01T00:00:00Z",
     "-001-01-01T00:00:00Z", "2026-02-30T00:00:00Z"],
)  # fmt: skip
def test_what_is_not_a_time_is_refused(text: str) -> None:
    with pytest.raises(CorruptError):
        parse_time_ns(text)


@pytest.mark.parametrize(
    "quoted",
    ["", ".", "..", "a/b", "/", "../x", r"..\x2f", r"\x2e\x2e", r"\x2e", r"a\x00", r"\u0000", r"\000",
     r"a\057b",
     "\\", "a\\", r"\q", r"\\\q", r"\x4", r"\xzz", r"\u12", r"\U00110000", r"\ud800", r"\udfff", r"\777",
     r"\'",
     'a"b', "a\nb", r"\/", "\\\n"],
)  # fmt: skip
def test_a_name_that_is_hostile_or_malformed_is_refused(quoted: str) -> None:
    with pytest.raises(CorruptError):
        unquote_name(quoted, "here")


@pytest.mark.parametrize(
    ("quoted", "name"),
    [(r"\\", b"\\"), (r"\\\\", b"\\\\"), (r"\\n", b"\\n"), (r"\\\n", b"\\\n"), (r"\xff\xfe", b"\xff\xfe"),
     (r"\u2028", "\u2028".encode()), (r"\U0001f9e8", "\U0001f9e8".encode()), (r"\101", b"A"), (r"\"", b'"'),
     (r"\x2e\x2e.", b"..."), ("é", "é".encode()), ("\t", b"\t")],
)  # fmt: skip
def test_a_quoted_name_is_read_as_go_reads_it(quoted: str, name: bytes) -> None:
    assert unquote_name(quoted, "here") == name


def test_two_entries_of_one_name_are_refused_even_when_quoted_differently() -> None:
    node = b'{"name":"%s","type":"file","mtime":"2026-01-01T00:00:00Z"}'
    with pytest.raises(CorruptError, match="same name"):
        decode_tree(b'{"nodes":[%s,%s]}' % (node % b"A", node % rb"\\x41"), "here")


GOOD = {"name": "a", "type": "file", "mtime": "2026-01-01T00:00:00Z"}
DEEP = b"[" * 1000 + b"]" * 1000  # deeper than Python can render


def malformed(change: dict[str, object]) -> bytes:
    """A tree of one node that is good but for the change."""
    change = {key: "DEEP" if value is DEEP else value for key, value in change.items()}
    return orjson.dumps({"nodes": [{**GOOD, **change}]}).replace(b'"DEEP"', DEEP)


@pytest.mark.parametrize(
    "change",
    [{"name": None}, {"name": 5}, {"name": ["a"]}, {"name": DEEP}, {"type": None}, {"mtime": 5},
     {"mtime": DEEP},
     {"mode": -1}, {"mode": 2**32}, {"mode": 0.5}, {"mode": True}, {"mode": "0644"}, {"uid": 2**32},
     {"gid": -1},
     {"size": 1e30}, {"size": -5}, {"inode": "1"}, {"links": [1]}, {"content": "abc"}, {"content": ["zz"]},
     {"content": [None]}, {"content": {"0": "a"}}, {"content": ["DEEP"]}, {"subtree": "ab"}, {"subtree": 7},
     {"subtree": DEEP}, {"extended_attributes": 5}, {"extended_attributes": [5]},
     {"extended_attributes": [{"name": ""}]}, {"extended_attributes": [{"name": "a\0"}]},
     {"extended_attributes": [{"name": "a", "value": "?"}]}, {"extended_attributes": [{"value": ""}]},
     {"linktarget": "a\0b"}, {"linktarget": 7}, {"linktarget_raw": "AA=A"}, {"linktarget_raw": 7},
     {"linktarget_raw": "AA=="}, {"user": 7}, {"atime": ""}, {"ctime": None}, {"device": -1}],
)  # fmt: skip
def test_a_malformed_node_is_corrupt_and_nothing_else(change: dict[str, object]) -> None:
    with pytest.raises(CorruptError) as caught:
        decode_tree(malformed(change), "tree 12345678")
    assert "tree 12345678" in caught.value.message
    assert len(caught.value.message) < 400


@pytest.mark.parametrize(
    "tree",
    [b"", b"null", b"[]", b"5", b"{}", b'{"nodes":{}}', b'{"nodes":[5]}', b'{"nodes":[null]}',
     b'{"nodes":[{}]}',
     b"\xff", b'{"nodes":[{"name":"\xff"}]}', b'{"nodes":NaN}', b'{"nodes":[1e999]}', b'{"nodes":[',
     b"[" * 100_000,
     b'{"nodes":' * 5000, b"\x00" * 100],
)  # fmt: skip
def test_what_is_not_a_tree_is_corrupt_and_nothing_else(tree: bytes) -> None:
    with pytest.raises(CorruptError):
        decode_tree(tree, "here")


def test_an_empty_tree_is_read_as_go_writes_it_either_way() -> None:
    assert decode_tree(b'{"nodes":[]}\n', "here") == []
    assert decode_tree(b'{"nodes":null}\n', "here") == []
    assert join_tree([]) == b'{"nodes":[]}\n'


def test_of_a_duplicate_key_the_last_one_counts_as_in_go() -> None:
    tree = b'{"nodes":[{"name":"a","name":"b","type":"file","mtime":"2026-01-01T00:00:00Z"}]}'
    assert decode_tree(tree, "here")[0].name == b"b"


def test_unknown_types_and_fields_are_read_over() -> None:
    tree = orjson.dumps({"nodes": [{**GOOD, "type": "irregular", "generic_attributes": {"x": 1}}], "new": 1})
    assert decode_tree(tree, "here")[0].type == "irregular"
