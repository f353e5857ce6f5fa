"""How command-line tests run drctl: in a process of its own, as a user does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

Completed = subprocess.CompletedProcess[str]
ROOT = Path(__file__).parents[2]


def environment(**extra: str) -> dict[str, str]:
    """A clean environment that finds this checkout."""
    keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**keep, "PYTHONPATH": str(ROOT), "TERM": "xterm", **extra}


# a test run in the background (nohup, `&`) hands ignored signals down, and what is ignored at the
# start drctl rightly goes on ignoring
DEFAULT_SIGNALS = ("env", "--default-signal=INT,TERM,HUP")


def run_module(module: str, *arguments: str | Path, cwd: Path | None = None, **extra: str) -> Completed:
    """`python -m module arguments`; what is not UTF-8 comes back with surrogate escapes."""
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        env=environment(**extra),
        cwd=cwd,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        stdin=subprocess.DEVNULL,
        timeout=300,  # a machine may be busy; a hang is still found
        check=False,
    )


def json_lines(done: Completed) -> list[dict[str, object]]:
    """What a run with `--output json` printed."""
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def drctl() -> Callable[..., Completed]:
    """`drctl("plan", "show", cwd=..., DRCTL_PLAN=...)`."""
    return lambda *arguments, **settings: run_module("drctl", *arguments, **settings)


@pytest.fixture
def sample() -> Callable[..., Completed]:
    """The same with the commands of `tests/cli/sample.py`."""
    return lambda *arguments, **settings: run_module("tests.cli.sample", *arguments, **settings)


@dataclass(frozen=True)
class Home:
    """A folder where `drctl init` was run, with a tree to be backed up."""

    folder: Path

    @property
    def tree(self) -> Path:
        return self.folder / "tree"

    @property
    def repository(self) -> Path:
        return self.folder / "drctl" / "repository"

    @property
    def key_file(self) -> Path:
        return self.folder / "drctl" / "repository.key"

    @property
    def plan(self) -> Path:
        return self.folder / "drctl" / "drctl.yaml"

    def run(self, *arguments: str | Path) -> Completed:
        """A drctl command with this plan."""
        return run_module("drctl", "--plan", self.plan, *arguments)

    def lines(self, *arguments: str | Path) -> list[dict[str, object]]:
        """The same as JSON lines; the run must have ended well."""
        done = self.run(*arguments, "--output", "json")
        assert done.returncode == 0, done.stderr
        return json_lines(done)

    def snapshot_ids(self) -> list[str]:
        """What is in the repository, oldest first."""
        return [
            str(line["id"]) for line in self.lines("backup", "list") if line["message_type"] == "snapshot"
        ]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A fresh one."""
    made = Home(tmp_path)
    (made.tree / "folder").mkdir(parents=True)
    (made.tree / "hello.txt").write_text("hello\n")
    (made.tree / "folder" / "numbers").write_bytes(bytes(range(256)) * 40)
    done = run_module("drctl", "init", tmp_path / "drctl", "--path", made.tree, "--service", "shop")
    assert done.returncode == 0, done.stderr
    return made
