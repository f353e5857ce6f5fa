"""A few points of the sweep that `make faults` makes over every flow (tests/faults)."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.flows import FLOWS
from tests.faults.scene import make_scene
from tests.faults.sweep import sweep


@pytest.mark.parametrize(
    ("name", "fault", "call"),
    [
        ("backup", "ENOSPC", "writev"),
        ("restore", "EIO", "openat"),
        ("delta-restore", "EIO", "flock"),
        ("prune", "KILL", "unlink"),
        ("init", "KILL", "fsync"),
    ],
)
def test_a_failing_system_call_harms_nothing_and_a_rerun_ends_the_flow(
    tmp_path: Path, name: str, fault: str, call: str
) -> None:
    seed = random.SystemRandom().randrange(10**6)
    scene = make_scene(tmp_path / "scene", large=False)
    report = sweep(scene, FLOWS[name], 1, seed, faults=(fault,), calls=(call,))
    assert report.points == 1
    assert not report.complaints, str(report)
