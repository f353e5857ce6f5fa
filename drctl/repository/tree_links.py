"""What a tree refers to, for those who walk many: content blobs and subtrees, and nothing else built.

Invariant: a tree is accepted here exactly when `decode_tree` accepts it. Nodes that look ordinary
are checked in a few steps; every other one is handed to `decode_node`, whose word is final.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from drctl.errors import CorruptError
from drctl.ports import Buffer
from drctl.repository.fields import UINT32
from drctl.repository.tree import decode_node, raw_nodes

# day 29 and later, and other rarities, are left to decode_node
_ORDINARY_TIME = (
    r"[12]\d\d\d-(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,9})?"
    r"(?:Z|[+-](?:0\d|1[0-3]):[0-5]\d)"
)
_THREE_TIMES = re.compile(rf"{_ORDINARY_TIME} {_ORDINARY_TIME} {_ORDINARY_TIME}", re.ASCII)
_ORDINARY_NAME = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9 !#$%'()*+,\-.:;=?@\[\]^_`{|}~]+")
_ID = re.compile(r"[0-9a-f]{64}")
_RARE = frozenset(("linktarget", "linktarget_raw", "extended_attributes", "device"))
_UINT32_FIELDS = ("mode", "uid", "gid")
_UINT64_FIELDS = ("inode", "device_id", "size", "links", "device")


class Links(NamedTuple):
    """What one node refers to."""

    name: str  # as it is quoted in the tree
    is_directory: bool
    content: list[bytes]
    subtree: bytes | None


def decode_links(tree: Buffer, where: str) -> list[Links]:
    """Of every node of a tree blob. CorruptError as `decode_tree` raises it."""
    nodes = raw_nodes(tree, where)
    names = set()
    links = []
    for raw in nodes:
        found = _ordinary(raw)
        if found is None:
            node = decode_node(raw, where)
            name = node.name
            found = Links(str(raw["name"]), node.type == "dir", list(node.content), node.subtree)
        else:
            name = found.name.encode()
        names.add(name)
        links.append(found)
    if len(names) != len(nodes):
        raise CorruptError(f"{where}: two entries of the same name")
    return links


def _ordinary(raw: dict[str, object]) -> Links | None:
    """The links of a node that cannot be but well formed; None where that takes a closer look."""
    try:
        name, content, subtree = raw["name"], raw.get("content"), raw.get("subtree")
        times = f"{raw['mtime']} {raw['atime']} {raw['ctime']}"
        small = [raw.get(field, 0) for field in _UINT32_FIELDS]
        large = [raw.get(field, 0) for field in _UINT64_FIELDS]
        if (
            not _ORDINARY_NAME.fullmatch(name)  # type: ignore[call-overload]
            or not _THREE_TIMES.fullmatch(times)
            or {*map(type, small), *map(type, large)} != {int}
            or min(small) < 0  # type: ignore[type-var, operator]
            or min(large) < 0  # type: ignore[type-var, operator]
            or max(small) >= UINT32  # type: ignore[type-var, operator]
            or not _RARE.isdisjoint(raw)
            or not type(raw["type"]) is type(raw.get("user", "")) is type(raw.get("group", "")) is str
            or (subtree is not None and not _ID.fullmatch(subtree))  # type: ignore[call-overload]
            or (content and not all(map(_ID.fullmatch, content)))  # type: ignore[call-overload]
            or type(content) not in (list, type(None))
        ):
            return None
    except (KeyError, TypeError):
        return None
    blobs = list(map(bytes.fromhex, content)) if content else []  # type: ignore[call-overload]
    tree = bytes.fromhex(subtree) if subtree else None  # type: ignore[arg-type]
    return Links(name, raw["type"] == "dir", blobs, tree)  # type: ignore[arg-type]
