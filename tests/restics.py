"""The restic programs at hand: what drctl's repositories are judged by."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.format.stock_restic import restics

PASSWORD = "judged"


def restic_programs() -> list[str]:
    """The one in PATH, and those that `DRCTL_TEST_RESTICS` names."""
    return restics()


class Restic:
    """One program and one repository."""

    def __init__(self, program: str, repository: Path) -> None:
        self._program = program
        self.repository = repository

    def version(self) -> tuple[int, ...]:
        """Such as (0, 19, 1)."""
        words = subprocess.run([self._program, "version"], capture_output=True, text=True, check=True).stdout
        return tuple(int(part) for part in words.split()[1].split("-")[0].split("."))

    def run(self, *words: str, cwd: Path | None = None) -> str:
        """Its standard output; fails the test when it fails."""
        done = subprocess.run(
            [self._program, "--no-cache", "-q", "-r", str(self.repository), *words],
            env={**os.environ, "RESTIC_PASSWORD": PASSWORD},
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.fail(f"restic {words} failed: {done.stderr}")
        return done.stdout
