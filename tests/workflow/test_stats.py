"""Statistics: what stock restic says of the same repository, and what is needed and what is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from drctl.clock import SystemClock
from drctl.errors import CorruptError
from drctl.repository.repo import FileKind
from drctl.workflows.stats import run_content_stats
from tests import restic
from tests.format.goldens import files, flip, unpack, writable
from tests.handmade import Handmade
from tests.workflow.upkeep_cases import cheapen, forget, make_repository, open_local, prune

CLOCK = SystemClock()


@pytest.mark.parametrize("program", restic.PROGRAMS)
def test_restore_sizes_are_those_of_restic(program: str, tmp_path: Path) -> None:
    directory = make_repository(tmp_path, program, megabytes=4)
    for snapshot, size in run_content_stats(open_local(directory), CLOCK).restore_bytes:
        told = restic.run(program, directory, "stats", "--json", (snapshot.id or b"").hex())
        assert json.loads(told)["total_size"] == size


def test_unused_bytes_are_what_a_prune_frees(tmp_path: Path) -> None:
    directory = make_repository(tmp_path, restic.PROGRAMS[-1], megabytes=4)
    assert run_content_stats(open_local(directory), CLOCK).unused_stored == 0
    forget(open_local(directory), 0)
    before = run_content_stats(open_local(directory), CLOCK)
    report = prune(open_local(directory))
    after = run_content_stats(open_local(directory), CLOCK)
    assert before.unused_stored == report.plan.unused_before > 0
    assert after.unused_stored == 0
    assert after.needed_stored == before.needed_stored


def test_ratios_say_what_dedup_and_compression_save(tmp_path: Path) -> None:
    handmade = Handmade(tmp_path / "repo")
    zeros = handmade.file("zeros", bytes(100_000))
    handmade.snapshot(handmade.tree(zeros))
    handmade.snapshot(handmade.tree(zeros, handmade.folder("again", {**zeros, "name": "twin"})))
    stats = run_content_stats(handmade.repository, CLOCK)
    # two snapshots of one instant come in any order
    assert sorted(size for _, size in stats.restore_bytes) == [100_000, 200_000]
    assert stats.dedup_ratio == pytest.approx(3.0)
    assert stats.compression_ratio is not None
    assert stats.compression_ratio > 50


def test_an_empty_repository_has_no_ratios(tmp_path: Path) -> None:
    stats = run_content_stats(Handmade(tmp_path / "repo").repository, CLOCK)
    assert (stats.restore_bytes, stats.dedup_ratio, stats.compression_ratio) == ((), None, None)


def test_very_deep_trees_are_added_up(tmp_path: Path) -> None:
    handmade = Handmade(tmp_path / "repo")
    nodes = [handmade.file("f", b"12345")]
    for _ in range(3000):
        nodes = [handmade.folder("d", *nodes)]
    handmade.snapshot(handmade.tree(*nodes))
    assert run_content_stats(handmade.repository, CLOCK).restore_bytes[0][1] == 5


def test_damage_is_an_error_not_a_smaller_number(tmp_path: Path) -> None:
    directory = unpack("restic-0.19-v2", tmp_path)
    cheapen(directory)
    for path in files(directory, FileKind.PACK):
        flip(writable(path), 20)
    with pytest.raises(CorruptError):
        run_content_stats(open_local(directory), CLOCK)
