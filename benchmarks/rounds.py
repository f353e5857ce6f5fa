"""The rounds: every tool does one thing after the other, in turns, on the same tree.

Invariant: within a round the tools alternate operation by operation, each round beginning with
another one, so that what disturbs the machine disturbs all of them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Measurement, measure
from benchmarks.tools import Tool


@dataclass(frozen=True)
class Result:
    """One run of one tool."""

    tree: str
    operation: str
    tool: str
    round: int
    measurement: Measurement


MEMORY = Path("/dev/shm/drctl-bench")
OPERATIONS = (
    "first backup",
    "unchanged rescan",
    "incremental",
    "restore to disk",
    "restore to memory",
    "check --read-data",
    "list",
    "--help",
)


def play_round(
    tree_name: str,
    tree: Path,
    tools: list[Tool],
    number: int,
    disturb: Callable[[Path, int], None],
    work: Path,
) -> Iterator[Result]:
    """All operations once, each by every tool. The tree is changed on the way."""
    order = tools[number % len(tools) :] + tools[: number % len(tools)]
    for tool in order:
        shutil.rmtree(work / tool.name, ignore_errors=True)
        (work / tool.name).parent.mkdir(parents=True, exist_ok=True)
        tool.prepare()
    _warm(tree)
    for operation in OPERATIONS:
        if operation == "incremental":
            disturb(tree, number)
        for tool in order:
            yield Result(tree_name, operation, tool.name, number, _perform(operation, tool, tree, work))


def _perform(operation: str, tool: Tool, tree: Path, work: Path) -> Measurement:
    if operation.startswith("restore"):
        base = MEMORY if operation.endswith("memory") else work / "restored"
        shutil.rmtree(base, ignore_errors=True)
        result = measure(tool.restore(base / "target"), tool.environment, work)
        _compare(tree, base / "target", tool.name)
        shutil.rmtree(base)
        return result
    argv = {
        "first backup": tool.backup,
        "unchanged rescan": tool.backup,
        "incremental": tool.backup,
        "check --read-data": tool.check,
        "list": tool.list_snapshots,
        "--help": tool.help,
    }[operation]()
    return measure(argv, tool.environment, work)


def _warm(tree: Path) -> None:
    """Read it all once, so that no tool pays for the disk."""
    buffer = bytearray(2**20)
    for directory, _, files in os.walk(tree):
        for name in files:
            with open(os.path.join(directory, name), "rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass


def _compare(tree: Path, target: Path, name: str) -> None:
    """A restore that did not restore is no figure."""
    restored = target / str(tree).lstrip("/")
    argv = ["diff", "-r", "-q", "--no-dereference", str(tree), str(restored)]
    result = subprocess.run(argv, check=False, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{name} restored something else:\n{result.stdout[:1000]}{result.stderr[:1000]}")


def size_of(repository: Path) -> int:
    """Bytes of all files in it."""
    return sum(path.stat().st_size for path in repository.rglob("*") if path.is_file())
