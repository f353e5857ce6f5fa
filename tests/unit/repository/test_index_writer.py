"""Index files name every stored blob, or the run fails."""

from __future__ import annotations

import os

import pytest

from drctl.clock import SystemClock
from drctl.domain.secret import Secret
from drctl.errors import DrctlError
from drctl.repository.crypto import ScryptCost
from drctl.repository.index import index_fragment
from drctl.repository.index_writer import IndexWriter
from drctl.repository.opening import create_repository
from drctl.repository.pack import BlobType, PackedBlob
from drctl.repository.repo import Repository
from drctl.repository.uploads import StoredPack
from drctl.testing.memory_storage import MemoryStorage


@pytest.fixture
def repository() -> Repository:
    return create_repository(MemoryStorage(), Secret("key"), SystemClock(), cost=ScryptCost(n=2))


def _pack(blobs: int) -> StoredPack:
    pack = os.urandom(32)
    listed = [PackedBlob(os.urandom(32), BlobType.DATA, 40 * n, 40, 0) for n in range(blobs)]
    return StoredPack(pack, blobs, 40 * blobs, index_fragment(pack, listed))


def test_all_blobs_that_were_stored_are_named(repository: Repository) -> None:
    writer = IndexWriter(repository, SystemClock(), lambda: None)
    writer.add([_pack(3), _pack(30_000), _pack(30_000)])
    writer.add([_pack(2)])
    writer.finish(60_005)
    assert len(repository.load_index()) == 60_005


def test_a_stored_blob_that_no_index_names_fails_the_run(repository: Repository) -> None:
    writer = IndexWriter(repository, SystemClock(), lambda: None)
    writer.add([_pack(3)])
    with pytest.raises(DrctlError, match="4 blobs were stored, 3 are in the index"):
        writer.finish(4)


def test_a_lost_lock_keeps_the_index_from_being_written(repository: Repository) -> None:
    def lost() -> None:
        raise DrctlError("lost")

    writer = IndexWriter(repository, SystemClock(), lost)
    writer.add([_pack(1)])
    with pytest.raises(DrctlError, match="lost"):
        writer.finish(1)
    assert len(repository.load_index()) == 0
