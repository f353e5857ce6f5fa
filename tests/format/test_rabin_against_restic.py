"""The Rabin cutter cuts where stock restic cut."""

from __future__ import annotations

import random
from pathlib import Path

from drctl.domain.secret import Secret
from drctl.repository.chunker import MAX_CHUNK, MIN_CHUNK, split
from drctl.repository.ids import hash_of
from drctl.repository.opening import open_repository
from drctl.repository.rabin import RabinCutter
from drctl.repository.repo import Repository
from drctl.repository.tree import Node, decode_tree
from drctl.storage.local import LocalOptions, LocalStorage
from tests.format.stock_restic import PASSWORD, Restic


def files_of(repository: Repository, tree: bytes) -> dict[str, Node]:
    """All files under a tree by name."""
    found: dict[str, Node] = {}
    for node in decode_tree(repository.load_tree(tree), "tree"):
        if node.subtree:
            found |= files_of(repository, node.subtree)
        elif node.type == "file":
            found[node.name.decode()] = node
    return found


def contents() -> dict[str, bytes]:
    """Large files: random, edited, repeating, sparse, and of every length that is special."""
    noise = random.Random(7).randbytes(30 * 2**20)
    lines = b"".join(b"%08d GET /index.html 200 %d\n" % (n, n * n % 9973) for n in range(400_000))
    files = {
        "random": noise,
        "inserted": noise[:9_999_999] + b"a few bytes" + noise[9_999_999:],
        "removed": noise[:5_000_000] + noise[5_000_100:],
        "overwritten": noise[:20_000_000] + bytes(5000) + noise[20_005_000:],
        "zeros": bytes(20 * 2**20),
        "islands": b"".join(noise[n : n + 100] + bytes(2**20) for n in range(0, 2000, 100)),
        "log": lines,
        "period": b"0123456789abcdef" * 2**20,
    }
    for length in (1, MIN_CHUNK - 1, MIN_CHUNK, MIN_CHUNK + 1, MIN_CHUNK + 64, MAX_CHUNK, MAX_CHUNK + 1):
        files[f"zeros of {length}"] = bytes(length)
        files[f"random of {length}"] = noise[:length]
    return files


def test_large_files_get_exactly_the_blobs_stock_restic_gave_them(tmp_path: Path, restic_binary: str) -> None:
    files = contents()
    source = tmp_path / "source"
    source.mkdir()
    for name, content in files.items():
        (source / name).write_bytes(content)
    restic = Restic(restic_binary, str(tmp_path / "repository"))
    restic.run("init")
    restic.run("backup", str(source))
    repository = open_repository(LocalStorage(LocalOptions(restic.repository)), Secret(PASSWORD))
    nodes = files_of(repository, repository.snapshots()[0].tree)
    cutter = RabinCutter(repository.config.chunker_polynomial)

    assert nodes.keys() == files.keys()
    for name, content in files.items():
        for part in (len(content), 3_333_333):
            parts = (content[at : at + part] for at in range(0, len(content), part))
            chunks = split(cutter, parts)
            assert tuple(hash_of(chunk) for chunk in chunks) == nodes[name].content, name
    assert len(nodes["random"].content) > 10
