"""Trees: the JSON of one directory, byte for byte as Go's encoder writes it.

A tree's id is the hash of its bytes, so to share trees with restic (and with earlier runs) the key
order, the escaping and the time format must be exactly restic's (its internal/data/node.go; the
goldens in tests/format were written by stock restic).
Invariant: `decode_tree(join_tree(nodes))` gives the nodes back, and a name that could leave its
directory (`/`, NUL, `.`, `..`, empty) never passes `decode_tree`.
"""

from __future__ import annotations

import base64
import re
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

import orjson

from drctl.errors import CorruptError
from drctl.ports import Buffer, Entry
from drctl.repository.fields import UINT32, brief, number, sequence, text
from drctl.repository.ids import parse_id
from drctl.repository.printable import is_printable

MAX_NODES = 50_000_000
_GO_TYPE_BITS = {
    stat.S_IFDIR: ("dir", 1 << 31),
    stat.S_IFREG: ("file", 0),
    stat.S_IFLNK: ("symlink", 1 << 27),
    stat.S_IFBLK: ("dev", 1 << 26),
    stat.S_IFCHR: ("chardev", 1 << 26 | 1 << 21),
    stat.S_IFIFO: ("fifo", 1 << 25),
    stat.S_IFSOCK: ("socket", 1 << 24),
}
TYPE_WORDS = {bits: word for bits, (word, _) in _GO_TYPE_BITS.items()}
_GO_SPECIAL_BITS = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))
_POSIX_TYPE = {word: bits for bits, (word, _) in _GO_TYPE_BITS.items()}
_PLAIN_NAME = re.compile(
    rb"[A-Za-z0-9 !#$%'()*+,\-./:;=?@\[\]^_`{|}~]*"
)  # stands for itself in Quote and JSON
_NEEDS_JSON_ESCAPE = re.compile(r'["\\<>&\x00-\x1f\u2028\u2029\ud800-\udfff]')
_JSON_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}
_GO_SHORT = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v",
             "\\": "\\\\", '"': '\\"'}  # fmt: skip
_GO_ESCAPE = re.compile(
    rb"\\(?:([abfnrtv\\\"])|x([0-9a-fA-F]{2})|([0-3][0-7]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))"
)
_GO_UNSHORT = {b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v",
               b"\\": b"\\", b'"': b'"'}  # fmt: skip
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TimeText = Callable[[int], str]


@dataclass(frozen=True, slots=True)
class Node:
    """One entry of a directory as stored. `mode` is POSIX (`st_mode`); times are ns since the epoch."""

    name: bytes
    type: str  # file dir symlink dev chardev fifo socket, or what a newer program wrote
    mode: int
    mtime_ns: int
    atime_ns: int
    ctime_ns: int
    uid: int
    gid: int
    user: str
    group: str
    inode: int
    device_id: int
    size: int
    links: int
    link_target: bytes
    extended_attributes: tuple[tuple[bytes, bytes], ...]
    device: int
    content: tuple[bytes, ...]
    subtree: bytes | None


# --- writing -------------------------------------------------------------------------------


@lru_cache(4096)
def go_mode(st_mode: int) -> int:
    """Go's FileMode of a POSIX mode."""
    bits = stat.S_IMODE(st_mode) & 0o777 | _GO_TYPE_BITS[stat.S_IFMT(st_mode)][1]
    for posix, go in _GO_SPECIAL_BITS:
        if st_mode & posix:
            bits |= go
    return bits


def quote_name(name: bytes) -> str:
    """A file name as it stands between the quotes of the JSON: Go's strconv.Quote, then JSON."""
    if _PLAIN_NAME.fullmatch(name):
        return name.decode("ascii")
    return json_text(_go_quote(name))


def _go_quote(name: bytes) -> str:
    parts = []
    for char in name.decode("utf-8", "surrogateescape"):
        code = ord(char)
        if char in _GO_SHORT:
            parts.append(_GO_SHORT[char])
        elif 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8
            parts.append(f"\\x{code - 0xDC00:02x}")
        elif is_printable(char):
            parts.append(char)
        elif code < 0x20 or code == 0x7F:
            parts.append(f"\\x{code:02x}")
        else:
            parts.append(f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    return "".join(parts)


def json_text(text: str) -> str:
    """Text as Go's encoding/json escapes it, without the quotes. Bytes that are not UTF-8 come as
    Python's surrogates (as from os.fsdecode) and become Go's replacement character, one each."""
    return _NEEDS_JSON_ESCAPE.sub(_json_escape, text)


def _json_escape(match: re.Match[str]) -> str:
    char = match[0]
    code = 0xFFFD if 0xD800 <= ord(char) <= 0xDFFF else ord(char)
    return _JSON_SHORT.get(char) or f"\\u{code:04x}"


def render_node(  # noqa: PLR0913 - a node has this many independent parts
    entry: Entry,
    time_text: TimeText,
    owner: tuple[str, str],
    *,
    content: Sequence[str] | None = None,
    size: int | None = None,
    subtree: str | None = None,
    link_target: bytes | None = None,
    extended_attributes: Sequence[tuple[bytes, bytes]] = (),
) -> str:
    """One node's JSON. `content` are blob ids in hexadecimal (files), `size` the bytes really read."""
    kind = stat.S_IFMT(entry.mode)
    word = _GO_TYPE_BITS[kind][0]
    mtime = time_text(entry.mtime_ns)
    mode = go_mode(entry.mode)
    parts = [
        f'{{"name":"{quote_name(entry.name)}","type":"{word}"',
        f',"mode":{mode}' if mode else "",
        f',"mtime":"{mtime}","atime":"{mtime}","ctime":"{time_text(entry.ctime_ns)}"',
        f',"uid":{entry.uid},"gid":{entry.gid}{_owner_json(*owner)}',
        f',"inode":{entry.inode}' if entry.inode else "",
        f',"device_id":{entry.device}' if entry.device else "",
    ]
    if kind == stat.S_IFREG:
        length = entry.size if size is None else size
        parts.append(f',"size":{length}' if length else "")
    if kind in (stat.S_IFREG, stat.S_IFLNK, stat.S_IFBLK, stat.S_IFCHR) and entry.links:
        parts.append(f',"links":{entry.links}')
    if link_target is not None:
        parts.append(_link_json(link_target))
    if extended_attributes:
        parts.append(f',"extended_attributes":[{",".join(map(_xattr_json, extended_attributes))}]')
    if kind in (stat.S_IFBLK, stat.S_IFCHR) and entry.rdev:
        parts.append(f',"device":{entry.rdev}')
    if kind != stat.S_IFREG:
        parts.append(',"content":null')
    elif content:
        parts.append(',"content":["' + '","'.join(content) + '"]')
    else:
        parts.append(',"content":[]')
    parts.append(f',"subtree":"{subtree}"}}' if subtree else "}")
    return "".join(parts)


@lru_cache(4096)
def _owner_json(user: str, group: str) -> str:
    return (f',"user":"{json_text(user)}"' if user else "") + (
        f',"group":"{json_text(group)}"' if group else ""
    )


def _link_json(target: bytes) -> str:
    shown = f',"linktarget":"{json_text(target.decode("utf-8", "surrogateescape"))}"' if target else ""
    try:
        target.decode("utf-8")
    except UnicodeDecodeError:
        shown += f',"linktarget_raw":"{base64.b64encode(target).decode()}"'
    return shown


def _xattr_json(pair: tuple[bytes, bytes]) -> str:
    name, value = pair
    text_name = json_text(name.decode("utf-8", "surrogateescape"))
    return f'{{"name":"{text_name}","value":"{base64.b64encode(value).decode()}"}}'


def join_tree(nodes: Iterable[str]) -> bytes:
    """The tree blob of rendered nodes, which must come sorted by name bytes."""
    return ('{"nodes":[' + ",".join(nodes) + "]}\n").encode("utf-8")


# --- reading -------------------------------------------------------------------------------


def parse_time_ns(text: str, where: str = "time") -> int:
    """Nanoseconds since the epoch of an RFC 3339 time with up to nine decimals."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise CorruptError(f"{where}: not a time: {text[:60]!r}")
    whole, fraction, zone = match.groups()
    try:
        instant = datetime.fromisoformat(whole + ("+00:00" if zone == "Z" else zone))
    except ValueError as exc:
        if text.startswith("0000"):  # Go's zero year, before Python's calendar begins
            return -62_167_219_200 * 10**9
        raise CorruptError(f"{where}: not a time: {text[:60]!r}") from exc
    since = instant - _EPOCH
    return (since.days * 86_400 + since.seconds) * 10**9 + int((fraction or "").ljust(9, "0"))


def unquote_name(quoted: str, where: str) -> bytes:
    """The name bytes of a quoted name; CorruptError when it cannot be one entry of a directory."""
    name = quoted.encode("utf-8", "surrogatepass")
    if not _PLAIN_NAME.fullmatch(name):
        name = _go_unquote(name, where)
    if not name or name in (b".", b"..") or b"/" in name or b"\0" in name:
        raise CorruptError(f"{where}: hostile or malformed entry name {quoted[:80]!r}")
    return name


def _go_unquote(quoted: bytes, where: str) -> bytes:
    def replace(match: re.Match[bytes]) -> bytes:
        short, hexadecimal, octal, four, eight = match.groups()
        if short:
            return _GO_UNSHORT[short]
        if hexadecimal or octal:
            return bytes([int(hexadecimal, 16) if hexadecimal else int(octal, 8)])
        code = int(four or eight, 16)
        if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
            raise CorruptError(f"{where}: entry name with code point {code:#x}")
        return chr(code).encode("utf-8")

    # outside its escapes, Go's strconv.Unquote takes none of these
    if re.search(rb'[\\"\n]', _GO_ESCAPE.sub(b"", quoted)):
        raise CorruptError(f"{where}: malformed escape in entry name {quoted[:80]!r}")
    return _GO_ESCAPE.sub(replace, quoted)


def raw_nodes(tree: Buffer, where: str) -> list[dict[str, object]]:
    """The nodes as parsed JSON, checked for shape only."""
    try:
        value = orjson.loads(tree)
    except orjson.JSONDecodeError as exc:
        raise CorruptError(f"{where}: not JSON: {exc}") from exc
    nodes = value.get("nodes") if isinstance(value, dict) else None
    if nodes is None and isinstance(value, dict) and "nodes" in value:
        return []  # Go writes null for an empty list
    if not isinstance(nodes, list) or not all(isinstance(node, dict) for node in nodes):
        raise CorruptError(f"{where}: not a tree")
    return nodes


def decode_tree(tree: Buffer, where: str) -> list[Node]:
    """The nodes of a tree blob; CorruptError naming `where` for anything malformed or hostile,
    two entries of one name included."""
    nodes = [decode_node(raw, where) for raw in raw_nodes(tree, where)]
    if len({node.name for node in nodes}) != len(nodes):
        raise CorruptError(f"{where}: two entries of the same name")
    return nodes


def decode_node(raw: dict[str, object], where: str) -> Node:
    """One node out of parsed JSON."""
    try:
        name = unquote_name(text(raw["name"]), where)
        here = f"{where}: {name.decode('utf-8', 'backslashreplace')}"
        word = text(raw["type"])
        subtree = raw.get("subtree")
        mtime = parse_time_ns(text(raw["mtime"]), here)
        return Node(
            name=name,
            type=word,
            mode=_posix_mode(number(raw.get("mode", 0), UINT32), word),
            mtime_ns=mtime,
            atime_ns=parse_time_ns(text(raw["atime"]), here) if "atime" in raw else mtime,
            ctime_ns=parse_time_ns(text(raw["ctime"]), here) if "ctime" in raw else mtime,
            uid=number(raw.get("uid", 0), UINT32),
            gid=number(raw.get("gid", 0), UINT32),
            user=text(raw.get("user", "")),
            group=text(raw.get("group", "")),
            inode=number(raw.get("inode", 0)),
            device_id=number(raw.get("device_id", 0)),
            size=number(raw.get("size", 0)),
            links=number(raw.get("links", 0)),
            link_target=_link_target(raw, here),
            extended_attributes=_extended_attributes(raw.get("extended_attributes"), here),
            device=number(raw.get("device", 0)),
            content=tuple(parse_id(item, here) for item in sequence(raw.get("content"))),
            subtree=parse_id(subtree, here) if subtree is not None else None,
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise CorruptError(f"{where}: malformed node {brief(raw.get('name'))}: {exc}") from exc


def _posix_mode(mode: int, word: str) -> int:
    bits = mode & 0o777 | _POSIX_TYPE.get(word, 0)
    for posix, go in _GO_SPECIAL_BITS:
        if mode & go:
            bits |= posix
    return bits


def _link_target(raw: dict[str, object], where: str) -> bytes:
    exact = raw.get("linktarget_raw")
    if exact is not None:
        target = base64.b64decode(text(exact), validate=True)
    else:
        target = text(raw.get("linktarget", "")).encode("utf-8", "surrogatepass")
    if b"\0" in target:
        raise CorruptError(f"{where}: NUL in a link target")
    return target


def _extended_attributes(value: object, where: str) -> tuple[tuple[bytes, bytes], ...]:
    pairs = []
    for item in sequence(value):
        if not isinstance(item, dict):
            raise CorruptError(f"{where}: malformed extended attribute")
        name = text(item["name"]).encode("utf-8", "surrogatepass")
        if not name or b"\0" in name:
            raise CorruptError(f"{where}: malformed extended attribute name")
        pairs.append((name, base64.b64decode(text(item.get("value") or ""), validate=True)))
    return tuple(pairs)
