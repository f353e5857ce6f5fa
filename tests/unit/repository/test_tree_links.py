"""The quick reading of trees says what the thorough one says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drctl.errors import CorruptError
from drctl.repository.tree import decode_tree
from drctl.repository.tree_links import decode_links

ID = "ab" * 32
TIME = "2026-01-02T03:04:05.123456789Z"
FILE = {"name": "file", "type": "file", "mode": 0o644, "mtime": TIME, "atime": TIME, "ctime": TIME, "uid": 0,
        "gid": 0, "user": "root", "group": "root", "inode": 1, "device_id": 2, "size": 3, "links": 1,
        "content": [ID]}  # fmt: skip
DIRECTORY = {**FILE, "name": "dir", "type": "dir", "content": None, "subtree": ID}
ODD: list[Any] = [
    None, True, 0, 1, -1, 1.5, 2**32, 2**63, 2**64 - 1,
    [], [ID], [ID.upper()], [ID[:-1]], [ID + "a"], [None], [1], {},
    "", "x", ID, ID.upper(), ID[:-2] + "  ", f"{ID}\n", "dir",
    ".", "..", "...", "a/b", "a\\nb", "a\\x", "\x00", "ü", "\\u00fc", "\\xff", "a\nb", "file", "file\n",
    TIME + " " + TIME, "2026-02-30T00:00:00Z", "2026-13-01T00:00:00Z", "2026-01-01T24:00:00Z",
    "2026-01-01T00:00:00", "0000-01-01T00:00:00Z", "2026-01-01T00:00:00+23:59",
    "2026-01-01T00:00:00+24:00", "٢٠٢٦-01-01T00:00:00Z", "2026-01-01T00:00:60Z",
]  # fmt: skip
FIELDS = sorted(
    {*FILE, *DIRECTORY, "linktarget", "linktarget_raw", "extended_attributes", "device", "unknown"}
)


def _both(nodes: list[dict[str, Any]]) -> tuple[Any, Any]:
    tree = json.dumps({"nodes": nodes}, ensure_ascii=False).encode("utf-8", "surrogatepass")
    thorough: Any
    quick: Any
    try:
        thorough = [
            (node.type == "dir", list(node.content), node.subtree) for node in decode_tree(tree, "tree")
        ]
    except CorruptError:
        thorough = CorruptError
    try:
        quick = [tuple(links)[1:] for links in decode_links(tree, "tree")]
    except CorruptError:
        quick = CorruptError
    return thorough, quick


@pytest.mark.parametrize("base", [FILE, DIRECTORY], ids=["file", "dir"])
@pytest.mark.parametrize("field", FIELDS)
def test_any_odd_value_in_any_field_is_judged_alike(base: dict[str, Any], field: str) -> None:
    for value in ODD:
        thorough, quick = _both([{**base, field: value}])
        assert thorough == quick, value
    without = {name: value for name, value in base.items() if name != field}
    thorough, quick = _both([without])
    assert thorough == quick


@given(st.lists(st.fixed_dictionaries({"name": st.text(max_size=4)}), max_size=4), st.data())
@settings(max_examples=200)
def test_any_names_are_judged_alike(names: list[dict[str, str]], data: st.DataObject) -> None:
    nodes = [{**data.draw(st.sampled_from([FILE, DIRECTORY])), **name} for name in names]
    thorough, quick = _both(nodes)
    assert thorough == quick


def test_two_entries_of_one_name_are_refused_however_they_are_quoted() -> None:
    assert _both([FILE, {**FILE, "name": "\\x66ile"}]) == (CorruptError, CorruptError)


def test_ordinary_nodes_are_accepted() -> None:
    thorough, quick = _both([FILE, DIRECTORY])
    assert thorough == quick == [(False, [bytes.fromhex(ID)], None), (True, [], bytes.fromhex(ID))]
