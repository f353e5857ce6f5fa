"""What drctl stores is what stock restic would have stored: nasty names, large files, twin blobs."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from drctl.domain.plan import Chunker
from drctl.repository.ids import hash_of
from drctl.repository.pack import BlobType
from drctl.repository.snapshot import Snapshot
from drctl.repository.tree import decode_tree
from tests.compare import differences
from tests.format.nasty_tree import make_nasty_tree
from tests.workflow.backups import Place, settle


def data_tree(place: Place, snapshot: Snapshot) -> bytes:
    """The id of the data directory's tree."""
    repository, tree = place.open(), snapshot.tree
    for name in os.fsencode(place.data).split(b"/")[1:]:
        nodes = {node.name: node for node in decode_tree(repository.load_tree(tree), "test")}
        tree = nodes[name].subtree or b""
    return tree


def large_files(data: Path) -> None:
    """Random, edited, and mostly empty files above the size at which content decides on the cuts."""
    noise = random.Random(4).randbytes(12 * 2**20)
    (data / "noise").write_bytes(noise)
    (data / "edited").write_bytes(noise[:5_000_000] + b"inserted" + noise[5_000_000:])
    with open(data / "sparse and large", "wb") as file:
        file.truncate(12 * 2**20)
        file.seek(5 * 2**20)
        file.write(b"island")


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/Caracas"])
def test_nasty_trees_and_large_files_get_the_ids_restic_gives_them(
    place: Place, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    make_nasty_tree(os.fsencode(place.data), old_program=place.restic().version < (0, 17))
    large_files(place.data)
    settle()
    restic = place.restic()
    restic = type(restic)(restic.binary, restic.repository, zone)
    restic.run("backup", str(place.data))
    theirs = place.open().snapshots()[-1]
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        report = place.back_up(full=True, chunker=Chunker.RESTIC)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert report.problems == ()
    assert report.counts.data_blobs == 0
    assert data_tree(place, report.snapshot) == data_tree(place, theirs)


def test_restic_finds_large_files_stored_that_were_cut_its_way(place: Place) -> None:
    large_files(place.data)
    settle()
    place.back_up(chunker=Chunker.RESTIC)
    before = place.open().load_index()
    place.restic().run("backup", "--force", str(place.data))
    after = place.open().load_index()
    assert {blob.id for _, blob in before if blob.type is BlobType.DATA} == {
        blob.id for _, blob in after if blob.type is BlobType.DATA
    }
    place.restic().run("check", "--read-data")


def test_a_file_that_holds_the_bytes_of_a_tree_is_stored_beside_that_tree(
    place: Place, tmp_path: Path
) -> None:
    empty_tree = b'{"nodes":[]}\n'
    (place.data / "empty").mkdir()
    settle()
    place.back_up()
    (place.data / "tree.json").write_bytes(empty_tree)
    settle()
    report = place.back_up()
    table = place.open().load_index()
    assert table.has(hash_of(empty_tree), BlobType.TREE)
    assert table.has(hash_of(empty_tree), BlobType.DATA)
    assert report.counts.data_blobs == 1
    place.restic().run("check", "--read-data")
    assert differences(place.data, place.restored(tmp_path / "out"), top=True) == []


def test_the_bytes_of_a_tree_and_of_a_file_may_come_in_one_run(place: Place, tmp_path: Path) -> None:
    for number in range(20):
        (place.data / f"folder {number}").mkdir()
        (place.data / f"file {number}").write_bytes(b'{"nodes":[]}\n')
    settle()
    place.back_up()
    place.restic().run("check", "--read-data")
    assert differences(place.data, place.restored(tmp_path / "out"), top=True) == []


def test_restic_prune_finds_nothing_to_do_after_us(place: Place) -> None:
    (place.data / "empty").mkdir()
    (place.data / "file").write_bytes(b"text " * 1000)
    settle()
    place.back_up()
    said = place.restic().run("prune", "--dry-run").stdout
    assert "to repack:             0 blobs" in said or "to repack:            0 blobs" in said
