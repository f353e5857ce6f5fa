"""Any tree that a snapshot can hold comes back, under any way of cutting and packing it."""

from __future__ import annotations

import base64
import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drctl.repository.extract import RestoreOptions, apply_restore, plan_restore, verify_restore
from drctl.repository.extract_target import Existing
from drctl.repository.selection import Selection
from drctl.repository.tree import quote_name
from tests.handmade import Handmade, Json, node

names = st.binary(min_size=1, max_size=12).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)
modes = st.integers(0, 0o777)
blobs = st.binary(min_size=1, max_size=64) | st.integers(1, 5).map(lambda n: bytes(5000 * n))
files = st.tuples(st.just("file"), modes, st.lists(blobs, max_size=5))
links = st.tuples(
    st.just("link"), st.just(0o777), st.binary(min_size=1, max_size=20).filter(lambda t: 0 not in t)
)
trees = st.recursive(
    st.dictionaries(names, files | links, max_size=5),
    lambda inner: st.dictionaries(names, files | links | st.tuples(st.just("dir"), modes, inner), max_size=5),
    max_leaves=25,
)


def _store(made: Handmade, tree: dict[bytes, Any], split: st.DataObject) -> str:
    nodes: list[Json] = []
    for name, (kind, mode, content) in sorted(tree.items()):
        text = _text(name)
        if kind == "file":
            nodes.append(made.file(text, *content) | {"mode": mode})
            if split.draw(st.booleans()):
                made.new_pack()
        elif kind == "link":
            raw = base64.b64encode(content).decode()
            nodes.append(node(text, "symlink", mode=1 << 27 | 0o777, linktarget_raw=raw, links=1))
        else:
            subtree = _store(made, content, split)
            nodes.append(node(text, "dir", mode=1 << 31 | mode, subtree=subtree))
    return made.tree(*nodes)


def _text(name: bytes) -> str:
    """The name as it stands in a tree, which is quoted as Go does it, without JSON's own escapes."""
    return str(json.loads(f'"{quote_name(name)}"'))


def _read(directory: bytes) -> dict[bytes, Any]:
    found: dict[bytes, Any] = {}
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        status = os.lstat(path)
        mode = stat.S_IMODE(status.st_mode)
        if stat.S_ISLNK(status.st_mode):
            found[name] = ("link", 0o777, os.readlink(path))
        elif stat.S_ISDIR(status.st_mode):
            found[name] = ("dir", mode, _read(path))
        else:
            os.chmod(path, 0o600)
            found[name] = ("file", mode, Path(os.fsdecode(path)).read_bytes())
    return found


def _joined(tree: dict[bytes, Any]) -> dict[bytes, Any]:
    return {
        name: (
            kind,
            mode,
            b"".join(content) if kind == "file" else _joined(content) if kind == "dir" else content,
        )
        for name, (kind, mode, content) in tree.items()
    }


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tree=trees, sparse=st.booleans(), existing=st.sampled_from(Existing), data=st.data())
def test_any_tree_comes_back(
    tree: dict[bytes, Any], sparse: bool, existing: Existing, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        made = Handmade(Path(scratch) / "repository")
        snapshot = made.snapshot(_store(made, tree, data))
        target = os.fsencode(scratch) + b"/target"
        options = RestoreOptions(existing=existing, sparse=sparse, workers=1)
        plan = plan_restore(made.repository, snapshot, Selection(), target, options)
        assert apply_restore(made.repository, plan, target, options).failures == ()
        if os.geteuid() == 0:  # whoever cannot read mode 0 cannot look again either
            assert verify_restore(made.repository, plan, target, options) == ()
            assert _read(target) == _joined(tree)


@pytest.mark.parametrize("name", [b"\x07\x01", b"\\x2e", b'"\\"', b"\xff\xfe", b"a\nb", b"\\"])
def test_a_name_that_is_stored_quoted_comes_back(name: bytes, tmp_path: Path) -> None:
    made = Handmade(tmp_path / "repository")
    snapshot = made.snapshot(made.tree(made.file(_text(name), b"x")))
    target = os.fsencode(tmp_path / "target")
    plan = plan_restore(made.repository, snapshot, Selection(), target)
    assert apply_restore(made.repository, plan, target).failures == ()
    assert os.listdir(target) == [name]
