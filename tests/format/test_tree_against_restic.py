"""Trees that stock restic wrote, written again byte for byte."""

from __future__ import annotations

import gzip
import json
import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from drctl.domain.secret import Secret
from drctl.ports import Entry
from drctl.repository.ids import hash_of, parse_id
from drctl.repository.opening import open_repository
from drctl.repository.pack import BlobType
from drctl.repository.repo import Repository
from drctl.repository.tree import Node, decode_tree, go_mode, join_tree, quote_name, render_node
from drctl.storage.local import LocalOptions, LocalStorage
from tests.format.nasty_tree import NAMES, make_nasty_tree
from tests.format.stock_restic import PASSWORD, Restic

GOLDENS = Path(__file__).parent / "golden" / "trees"
ZONES = ("UTC", "Europe/Berlin", "Asia/Kathmandu", "America/Caracas")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def go_time(zone: str) -> Callable[[int], str]:
    """Go's RFC3339Nano in a zone."""

    def text(nanoseconds: int) -> str:
        seconds, fraction = divmod(nanoseconds, 10**9)
        local = (_EPOCH + timedelta(seconds=seconds)).astimezone(ZoneInfo(zone))
        digits = f".{fraction:09d}".rstrip("0").rstrip(".")
        offset = local.strftime("%z")
        return f"{local:%Y-%m-%dT%H:%M:%S}{digits}" + (
            "Z" if offset == "+0000" else f"{offset[:3]}:{offset[3:5]}"
        )

    return text


def rendered(node: Node, time_text: Callable[[int], str]) -> str:
    """A decoded node written again."""
    entry = Entry(
        name=node.name, mode=node.mode, size=node.size, mtime_ns=node.mtime_ns, ctime_ns=node.ctime_ns,
        inode=node.inode, device=node.device_id, links=node.links, uid=node.uid, gid=node.gid,
        rdev=node.device,
    )  # fmt: skip
    return render_node(
        entry,
        time_text,
        (node.user, node.group),
        content=[blob.hex() for blob in node.content],
        subtree=node.subtree.hex() if node.subtree else None,
        link_target=node.link_target if stat.S_ISLNK(node.mode) else None,
        extended_attributes=node.extended_attributes,
    )


def rewritten(tree: bytes, zone: str) -> bytes:
    """The tree decoded and written again."""
    again = join_tree(rendered(node, go_time(zone)) for node in decode_tree(tree, "golden"))
    # restic keeps the names of attributes as text: of bytes that are not UTF-8 this much is left
    return again.replace("\ufffd".encode(), b"\\ufffd")


def trees_of(repository: Repository) -> dict[bytes, bytes]:
    """All tree blobs, hashed to their ids on the way."""
    return {
        blob.id: repository.load_tree(blob.id)
        for _, blob in repository.load_index()
        if blob.type is BlobType.TREE
    }


def test_nasty_trees_of_stock_restic_are_written_again_byte_for_byte(
    tmp_path: Path, restic_binary: str
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    restic = Restic(restic_binary, str(tmp_path / "repository"))
    make_nasty_tree(os.fsencode(source), old_program=restic.version < (0, 17))
    known: set[bytes] = set()
    restic.run("init")
    for zone in ZONES:
        restic = Restic(restic_binary, str(tmp_path / "repository"), zone)
        restic.run("backup", "--force", str(source))
        repository = open_repository(LocalStorage(LocalOptions(restic.repository)), Secret(PASSWORD))
        trees = {key: tree for key, tree in trees_of(repository).items() if key not in known}
        known |= set(trees)

        assert len(trees) >= 8
        for identifier, tree in trees.items():
            again = rewritten(tree, zone)
            assert again == tree
            assert hash_of(again) == identifier
        names = {node.name for tree in trees.values() for node in decode_tree(tree, "")}
        assert names >= set(NAMES)
        _keep(restic, trees, zone)


def _keep(restic: Restic, trees: dict[bytes, bytes], zone: str) -> None:
    """With DRCTL_WRITE_GOLDENS=DIRECTORY the goldens are made anew."""
    if directory := os.environ.get("DRCTL_WRITE_GOLDENS"):
        version = ".".join(map(str, restic.version))
        golden = Path(directory) / f"{version}-{zone.replace('/', '_')}.json.gz"
        content = json.dumps({key.hex(): tree.decode() for key, tree in trees.items()}, indent=0)
        golden.write_bytes(gzip.compress(content.encode(), mtime=0))


def test_cat_blob_of_stock_restic_gives_the_tree_that_is_read(tmp_path: Path, restic_binary: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "<&>").write_text("x")
    restic = Restic(restic_binary, str(tmp_path / "repository"))
    restic.run("init")
    restic.run("backup", str(source))
    repository = open_repository(LocalStorage(LocalOptions(restic.repository)), Secret(PASSWORD))
    tree = repository.snapshots()[0].tree

    assert restic.run("cat", "blob", tree.hex()).stdout.encode() == repository.load_tree(tree)


@pytest.mark.parametrize("golden", sorted(GOLDENS.glob("[0-9]*.json.gz")), ids=lambda path: path.name)
def test_a_kept_tree_of_stock_restic_is_written_again_byte_for_byte(golden: Path) -> None:
    zone = golden.name.split("-", 1)[1].removesuffix(".json.gz").replace("_", "/", 1)
    trees = json.loads(gzip.decompress(golden.read_bytes()))
    assert len(trees) >= 8
    for identifier, tree in trees.items():
        assert hash_of(rewritten(tree.encode(), zone)) == parse_id(identifier, golden.name)


def test_every_code_point_is_quoted_as_stock_restic_quoted_it() -> None:
    golden = json.loads(gzip.decompress((GOLDENS / "printable-0.19.1.json.gz").read_bytes()))
    for first, last, printed in golden:
        for code in range(first, last + 1):
            quoted = quote_name(b"x" + chr(code).encode())
            assert (quoted == f"x{chr(code)}") is printed, hex(code)


def test_modes_have_gos_bits() -> None:
    assert go_mode(stat.S_IFREG | 0o644) == 0o644
    assert go_mode(stat.S_IFDIR | 0o1777) == 1 << 31 | 1 << 20 | 0o777
    assert go_mode(stat.S_IFREG | 0o6755) == 1 << 23 | 1 << 22 | 0o755
    assert go_mode(stat.S_IFCHR | 0o600) == 1 << 26 | 1 << 21 | 0o600
