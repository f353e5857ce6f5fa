"""A worker hands on every pack it stored, whenever the storing came to its end."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from drctl.clock import SystemClock
from drctl.domain.plan import Chunker
from drctl.domain.secret import Secret
from drctl.repository.archive_job import Job, Task, cutter_factory
from drctl.repository.archive_worker import TreeWorker
from drctl.repository.crypto import ScryptCost
from drctl.repository.fingerprints import Fingerprints
from drctl.repository.opening import create_repository
from drctl.repository.packer import Packer
from drctl.repository.seen import SeenBlobs
from drctl.sources.files import FilesOptions, FilesSource
from drctl.storage.local import LocalOptions, LocalStorage


@pytest.mark.parametrize("pause_s", [0.0, 0.3])
def test_packs_stored_before_a_worker_is_asked_for_the_rest_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pause_s: float
) -> None:
    """What was stored between the last flush and the last answer once went missing from every index."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "letter").write_bytes(b"dear reader")
    storage = LocalStorage(LocalOptions(str(tmp_path / "repository")))
    repository = create_repository(storage, Secret("key"), SystemClock(), cost=ScryptCost(n=2))
    repository.load_index()
    source = FilesSource(FilesOptions(paths=(str(tmp_path / "source"),)))
    make_cutter = cutter_factory(Chunker.FASTCDC, repository.config.chunker_polynomial)
    worker = TreeWorker(Job(repository, source, SeenBlobs(), make_cutter, 0, 0, Fingerprints()))
    answer = worker.process(Task(0, bytes(tmp_path / "source"), None))
    flush = Packer.flush

    def flush_and_let_it_be_stored(packer: Packer) -> None:
        flush(packer)
        time.sleep(pause_s)

    monkeypatch.setattr(Packer, "flush", flush_and_let_it_be_stored)
    named = {pack.id for pack in [*answer.packs, *worker.finish().packs]}
    assert len(named) == 2  # one of data, one of trees
    assert named == {
        bytes.fromhex(path.name) for path in (tmp_path / "repository" / "data").rglob("*") if path.is_file()
    }
