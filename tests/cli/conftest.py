"""How command-line tests run drctl: in a process of its own, as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Completed = subprocess.CompletedProcess[str]
ROOT = Path(__file__).parents[2]


def environment(**extra: str) -> dict[str, str]:
    """A clean environment that finds this checkout."""
    keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**keep, "PYTHONPATH": str(ROOT), "TERM": "xterm", **extra}


def _run(module: str, *arguments: str, cwd: Path | None = None, **extra: str) -> Completed:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=environment(**extra),
        cwd=cwd,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )


@pytest.fixture
def drctl() -> Callable[..., Completed]:
    """`drctl("plan", "show", cwd=..., DRCTL_PLAN=...)`."""
    return lambda *arguments, **settings: _run("drctl", *arguments, **settings)


@pytest.fixture
def sample() -> Callable[..., Completed]:
    """The same with the commands of `tests/cli/sample.py`."""
    return lambda *arguments, **settings: _run("tests.cli.sample", *arguments, **settings)
