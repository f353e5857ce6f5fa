"""Every flow, each of its system calls failing: what was there stays, a rerun ends it (safety 2, 3, 12)."""

from __future__ import annotations

import pytest

from tests.faults.flows import FLOWS
from tests.faults.scene import Scene
from tests.faults.sweep import sweep


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_survives_each_failing_system_call_and_kill(
    scene: Scene, name: str, per_call: int, seed: int
) -> None:
    report = sweep(scene, FLOWS[name], per_call, seed)
    print(report)
    assert not report.complaints, str(report)
    assert len(report.missed) < report.points / 2, f"most faults were not met: {report}"


@pytest.mark.parametrize(("control", "faults"), [("torn", ("KILL",)), ("deaf", ("EIO", "ENOSPC"))])
def test_the_sweep_finds_a_storage_that_is_broken_on_purpose(
    scene: Scene, control: str, faults: tuple[str, ...], seed: int
) -> None:
    report = sweep(
        scene,
        FLOWS["backup"],
        6,
        seed,
        program=("tests.faults.broken", control),
        faults=faults,
        calls=("write", "writev", "fsync", "renameat2", "openat"),
        enough=1,
    )
    print(report)
    assert report.complaints, f"the control passed: {report}"
