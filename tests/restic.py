"""Stock restic as judge of upkeep: the programs at hand, and how these tests run them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from drctl.domain.secret import Secret
from drctl.repository.crypto import ScryptCost
from tests.format.stock_restic import restics

PASSWORD = Secret("golden")
CHEAP = ScryptCost(n=1024)  # of keys that only tests have
PROGRAMS = restics()


def run(program: str, repository: Path, *arguments: str, cwd: Path | None = None) -> str:
    """Standard output; the test fails when the program does."""
    done = try_to(program, repository, arguments, cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def try_to(
    program: str, repository: Path, arguments: Sequence[str], cwd: Path | None = None, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run it, whatever comes of it."""
    environment = os.environ | {"RESTIC_PASSWORD": PASSWORD.reveal(), "RESTIC_REPOSITORY": str(repository)}
    return subprocess.run(
        [program, "--no-cache", *arguments],
        cwd=cwd,
        env=environment,
        text=True,
        capture_output=True,
        check=False,
        timeout=timeout_s,
    )


def assert_accepts(program: str, repository: Path) -> None:
    """`check --read-data` finds nothing."""
    assert "no errors were found" in run(program, repository, "check", "--read-data")
