"""Packs are stored in the background; the first failure stops whoever comes after it."""

from __future__ import annotations

import os
import threading

import pytest

from drctl.errors import StorageError
from drctl.repository.pack import BlobType, PackedBlob
from drctl.repository.packer import FinishedPack
from drctl.repository.uploads import Uploads


def _pack() -> FinishedPack:
    return FinishedPack(bytearray(os.urandom(50)), [PackedBlob(os.urandom(32), BlobType.DATA, 0, 40, 0)])


def test_only_what_was_stored_is_told() -> None:
    stored: list[bytes] = []
    uploads = Uploads(lambda pack: stored.append(pack.id))
    packs = [_pack() for _ in range(5)]
    for pack in packs:
        uploads.submit(pack)
    told = [pack.id for pack in uploads.finish()]
    assert sorted(told) == sorted(stored) == sorted(pack.id for pack in packs)


def test_after_a_failure_every_submit_fails_and_none_waits_for_ever() -> None:
    def fail(_pack: FinishedPack) -> None:
        raise StorageError("denied")

    uploads = Uploads(fail, threads=1)
    failures = []

    def submit_often() -> None:
        for _ in range(10):
            try:
                uploads.submit(_pack())
            except StorageError as error:
                failures.append(error)

    thread = threading.Thread(target=submit_often, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive(), "a submit waits for ever"
    assert len(failures) >= 8
    with pytest.raises(StorageError):
        uploads.finish()


def test_an_operating_systems_error_is_the_storages_and_not_the_sources() -> None:
    def fail(_pack: FinishedPack) -> None:
        raise OSError(28, "no space left on device")

    uploads = Uploads(fail)
    uploads.submit(_pack())
    with pytest.raises(StorageError, match="no space left"):
        uploads.finish()
