"""Stock restic as the judge of the format: which binaries there are, and how they are called.

`DRCTL_TEST_RESTICS` names more of them (colon-separated); the one in PATH is always used.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass

PASSWORD = "correct horse"


def restics() -> list[str]:
    """Paths of the binaries, the one in PATH first; never empty."""
    found = shutil.which("restic")
    assert found, "restic is not installed (tests/debian-packages.txt)"
    return [found, *filter(None, os.environ.get("DRCTL_TEST_RESTICS", "").split(":"))]


@dataclass(frozen=True)
class Restic:
    """One binary on one repository."""

    binary: str
    repository: str
    time_zone: str = "UTC"

    @property
    def version(self) -> tuple[int, ...]:
        """As (0, 19, 1)."""
        return tuple(map(int, self.run("version").stdout.split()[1].split(".")))

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Call it; with `check`, anything but exit code 0 fails the test."""
        environment = {
            "PATH": os.environ["PATH"],
            "RESTIC_PASSWORD": PASSWORD,
            "TZ": self.time_zone,
        }
        result = subprocess.run(
            [self.binary, "--no-cache", "--repo", self.repository, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or result.returncode == 0, result.stderr
        return result
