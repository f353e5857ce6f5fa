"""The nodes of a tree as a restore needs them, decoded fast.

Invariant: a node is either decoded by `tree.decode_node`, or is a plain file whose every field was
checked here as strictly; names come out of `tree.unquote_name` only.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from drctl.errors import CorruptError
from drctl.ports import Buffer
from drctl.repository.ids import parse_id
from drctl.repository.node_table import NO_EXTRA, Extra
from drctl.repository.tree import decode_node, parse_time_ns, raw_nodes, unquote_name

_FIRST_NS, _LAST_NS = -(2**63), 2**63 - 1


class FoundNode(NamedTuple):
    """One node. `link_key` tells hard links of one file; None where it has one name only."""

    name: bytes
    type: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int
    content: list[bytes]
    subtree: bytes | None
    extra: Extra
    link_key: tuple[int, int] | None


class NodeReader:
    """Decodes trees. Keeps what file modes mean, which few files vary."""

    def __init__(self) -> None:
        self._file_modes: dict[object, int] = {}

    def read(self, tree: Buffer, where: str) -> list[FoundNode]:
        """The nodes of a tree, in its order; CorruptError naming `where` for anything malformed or
        hostile, two entries of one name included."""
        nodes = list(self._decode(raw_nodes(tree, where), where))
        if len({node.name for node in nodes}) != len(nodes):
            raise CorruptError(f"{where}: two entries of the same name")
        return nodes

    def _decode(self, raws: list[dict[str, object]], where: str) -> Iterator[FoundNode]:
        for raw in raws:
            try:
                mode = self._file_modes.get(raw.get("mode"))
                if mode is not None and _is_plain_file(raw):
                    yield _decode_file(raw, mode, where)
                    continue
                node = _decode_any(raw, where)
                if node.type == "file":
                    self._file_modes[raw.get("mode")] = node.mode
                yield node
            except (KeyError, TypeError, ValueError, AttributeError) as exc:
                raise CorruptError(f"{where}: malformed node {str(raw.get('name'))[:80]!r}: {exc}") from exc


def _is_plain_file(raw: dict[str, object]) -> bool:
    return (
        raw.get("type") == "file"
        and raw.get("links") == 1
        and "extended_attributes" not in raw
        and raw.get("atime") == raw.get("mtime")
    )


def _decode_file(raw: dict[str, object], mode: int, where: str) -> FoundNode:
    name, mtime, content = raw["name"], raw["mtime"], raw.get("content")
    uid, gid, size = raw.get("uid", 0), raw.get("gid", 0), raw.get("size", 0)
    if not (type(uid) is type(gid) is type(size) is int):
        raise TypeError("owner and size must be numbers")
    ids = []
    for item in content or ():  # type: ignore[attr-defined]
        identifier = bytes.fromhex(item)
        ids.append(identifier if len(identifier) == 32 else parse_id(item, where))
    return FoundNode(
        unquote_name(name, where),  # type: ignore[arg-type]
        "file",
        mode,
        uid,
        gid,
        _time_ns(mtime, where),  # type: ignore[arg-type]
        size,
        ids,
        None,
        NO_EXTRA,
        None,
    )


def _time_ns(text: str, where: str) -> int:
    """As `parse_time_ns`: the whole second, which many files share, is looked up."""
    zone = "Z" if text.endswith("Z") else text[-6:]
    fraction = text[19 : -len(zone)]
    digits = fraction[1:]
    if fraction and not (fraction[0] == "." and len(digits) <= 9 and digits.isdigit() and digits.isascii()):
        raise CorruptError(f"{where}: not a time: {text[:60]!r}")
    try:
        second = _second_ns(text[:19] + zone)
    except CorruptError as exc:
        raise CorruptError(f"{where}: {exc.message}") from exc
    return second + int(digits.ljust(9, "0"))


@lru_cache(maxsize=4096)
def _second_ns(text: str) -> int:
    return _clamped(parse_time_ns(text))


def _clamped(nanoseconds: int) -> int:
    # Go's zero time (year 1) does not fit the kernel's nanoseconds; no file system keeps it either
    return min(max(nanoseconds, _FIRST_NS), _LAST_NS - 10**9)


def _decode_any(raw: dict[str, object], where: str) -> FoundNode:
    node = decode_node(raw, where)
    mtime, atime = _clamped(node.mtime_ns), _clamped(node.atime_ns)
    extra = Extra(
        node.link_target,
        node.device,
        node.extended_attributes,
        None if atime == mtime else atime,
    )
    link_key = (node.device_id, node.inode) if node.links > 1 and node.inode and node.type != "dir" else None
    return FoundNode(
        node.name,
        node.type,
        node.mode,
        node.uid,
        node.gid,
        mtime,
        node.size,
        list(node.content),
        node.subtree,
        NO_EXTRA if extra == NO_EXTRA else extra,
        link_key,
    )
