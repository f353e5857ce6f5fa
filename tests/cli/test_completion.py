"""The completion scripts load, and complete from the tables without importing commands."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Completed, environment


def _bash(script: str, path: Path) -> str:
    done = subprocess.run(
        ["bash", "--norc", "-euc", script],
        env=environment(PATH=f"{path}:/usr/bin:/bin"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


@pytest.fixture
def path_with_drctl(tmp_path: Path) -> Path:
    program = tmp_path / "drctl"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m drctl "$@"\n')
    program.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize(("typed", "expected"), [("compl", "completion"), ("--outp", "--output")])
def test_bash_completes_after_sourcing_the_script(path_with_drctl: Path, typed: str, expected: str) -> None:
    script = f"""
        source <(drctl completion bash)
        COMP_WORDS=(drctl {typed}) COMP_CWORD=1
        _drctl_completion drctl
        echo "${{COMPREPLY[@]}}"
    """
    assert _bash(script, path_with_drctl) == f"{expected}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_a_script(drctl: Callable[..., Completed], shell: str) -> None:
    done = drctl("completion", shell)
    assert done.returncode == 0
    assert f"_DRCTL_COMPLETE={shell}_complete" in done.stdout
