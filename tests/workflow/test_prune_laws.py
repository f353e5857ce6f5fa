"""Prune over repositories of any shape: whatever a snapshot needs still loads, and nothing else is left."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from drctl.repository.check import check_repository
from drctl.repository.pack import BlobType, PackedBlob
from drctl.repository.prune import UnusedLimit
from drctl.repository.repo import FileKind, Repository
from drctl.repository.sample import Everything
from drctl.repository.tree import decode_tree
from tests.handmade import NOON, Handmade
from tests.workflow.upkeep_cases import prune

# a snapshot is a set of small contents; each may open a new pack, and contents may come again
snapshots = st.lists(
    st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=8, unique_by=lambda c: c[0]),
    min_size=1,
    max_size=4,
)


@given(snapshots, st.sets(st.integers(0, 3)), st.sampled_from([0.0, 5.0, 60.0]))
@settings(max_examples=25, deadline=None)
def test_whatever_is_kept_loads_and_at_zero_nothing_else_is_left(
    made: list[list[tuple[int, bool]]], forgotten: set[int], percent: float
) -> None:
    with TemporaryDirectory() as directory:
        handmade = Handmade(Path(directory) / "repo")
        repository = handmade.repository
        for number, contents in enumerate(made):
            _back_up(handmade, number, contents)
        kept = {}
        for number, snapshot in enumerate(repository.snapshots()):
            if number in forgotten:
                repository.remove(FileKind.SNAPSHOT, snapshot.id or b"")
            else:
                kept[snapshot.id] = made[number]
        prune(repository, UnusedLimit(percent), remove_everything=True)
        assert check_repository(repository, Everything()).exit_code == 0
        repository.load_index()
        for snapshot in repository.snapshots():
            assert sorted(_contents(repository, snapshot.tree)) == sorted(
                _content(number) for number, _ in kept[snapshot.id]
            )
        if not percent:
            needed = {number for contents in kept.values() for number, _ in contents}
            listed = [blob for _, blob in _listed(repository) if blob.type == 0]
            assert len(listed) == len(needed)
        assert prune(repository, UnusedLimit(percent), remove_everything=True).plan.is_empty


def _back_up(handmade: Handmade, number: int, contents: list[tuple[int, bool]]) -> None:
    files = []
    for content, in_new_pack in contents:
        if in_new_pack:
            handmade.new_pack()
        files.append(handmade.file(f"{content:02}", _content(content)))
    handmade.snapshot(handmade.tree(*files), NOON + timedelta(hours=number))


def _content(number: int) -> bytes:
    return bytes([65 + number]) * (100 * number + 1)


def _contents(repository: Repository, tree: bytes) -> list[bytes]:
    nodes = decode_tree(repository.load_tree(tree), "tree")
    return [repository.load_blob(blob, BlobType.DATA) for node in nodes for blob in node.content]


def _listed(repository: Repository) -> Iterator[tuple[bytes, PackedBlob]]:
    for stored in repository.files(FileKind.INDEX):
        for pack, blobs in repository.index_file(stored.id):
            for blob in blobs:
                yield pack, blob
