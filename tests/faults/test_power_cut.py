"""An acknowledged backup is there after a power cut (safety 1, 7)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.faults.scene import ROOT

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


def _rounds(rounds: int, seed: int, control: str) -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="drctl-power-") as base:  # a disk: tmpfs would do as well
        # the mounts end with the namespace, whatever happens
        unshare = ["unshare", "-m", "--propagation", "private"]
        done = subprocess.run(
            [*unshare, sys.executable, "-m", "tests.faults.power_cut", base, str(rounds), str(seed), control],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert not Path(base, "disk", "repository").exists(), "the mount outlived its namespace"
        report: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
        print(report)
        return report


def test_what_was_acknowledged_survives_power_cuts(seed: int) -> None:
    report = _rounds(15, seed, "none")
    assert report["losses"] == [], report
    assert report["rounds"] == 15


def test_a_disk_that_lies_about_fsync_is_found_out(seed: int) -> None:
    report = _rounds(15, seed, "lying-disk")
    assert report["losses"], f"the control lost nothing: {report}"
