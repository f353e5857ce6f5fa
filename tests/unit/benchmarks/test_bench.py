"""The benchmark harness measures what it says; no figure is judged here."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from pathlib import Path

import pytest

from benchmarks.measure import Measurement, measure
from benchmarks.rounds import OPERATIONS, Result
from benchmarks.table import medians, render
from benchmarks.trees import TreeMaker, change


def digest(tree: Path) -> str:
    """All names and contents of a tree."""
    state = hashlib.sha256()
    for path in sorted(tree.rglob("*")):
        state.update(os.fsencode(path.relative_to(tree)) + b"\0")
        if path.is_file():
            state.update(path.read_bytes())
    return state.hexdigest()


def test_the_same_seed_makes_the_same_tree_and_the_same_changes(tmp_path: Path) -> None:
    digests = []
    for name in ("one", "two"):
        maker = TreeMaker(tmp_path / name, 0.005)
        maker.small()
        maker.large()
        before = digest(tmp_path / name)
        change(tmp_path / name, 1)
        digests.append((before, digest(tmp_path / name)))
    assert digests[0] == digests[1]
    assert digests[0][0] != digests[0][1]


def test_the_memory_of_children_counts(tmp_path: Path) -> None:
    child = "x = b'1' * 80_000_000; import time; time.sleep(0.4)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    result = measure([sys.executable, "-c", parent], dict(os.environ), tmp_path)
    assert 80e6 < result.peak_pss < 160e6
    assert result.max_rss > 80e6
    assert result.wall_s > 0.4


def test_a_program_that_fails_is_no_figure(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no such thing"):
        measure([sys.executable, "-c", "raise SystemExit('no such thing')"], dict(os.environ), tmp_path)


def test_the_table_shows_medians_and_ratios() -> None:
    def run(tool: str, operation: str, wall_s: float) -> Result:
        return Result("small", operation, tool, 0, Measurement(wall_s, 50_000_000, 60_000_000, 5))

    results = [run(tool, name, s) for name in OPERATIONS for tool, s in (("drctl", 1.0), ("restic", 2.0))]
    results += [run("drctl", "list", 1.5), run("drctl", "list", 9.0)]
    assert medians(results)["small", "list", "drctl"] == (1.5, 50_000_000, 60_000_000)
    text = render(results, ["drctl", "restic"], {"small": {"drctl": 5_000_000, "restic": 6_000_000}})
    assert "small first backup" in text and "0.50   1.00" in text
    assert re.search(r"small list +1\.50 ", text)
