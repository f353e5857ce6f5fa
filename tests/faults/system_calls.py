"""Letting one system call of a program fail, with Debian's strace.

A clean run under strace lists the calls that touch the scene; a point is the how-manieth call of its
name that a thread makes (strace counts by name and thread), and what becomes of it. Invariant: whether
the fault was met is read from the log, never assumed.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.faults.scene import Done

CALLS = (
    "openat", "write", "writev", "pwrite64", "fsync", "fdatasync", "rename", "renameat", "renameat2", "link",
    "linkat", "symlinkat", "unlink", "unlinkat", "mkdir", "mkdirat", "read", "pread64", "getdents64",
    "ftruncate", "fallocate", "utimensat", "fchmod", "fchown", "flock", "newfstatat",
)  # fmt: skip
FAULTS = ("KILL", "EIO", "ENOSPC")
_LINE = re.compile(r"(\d+) +(\w+)\((.*)")
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Point:
    """Where a fault is to happen. `path`: what the call touched in the clean run."""

    call: str
    number: int
    fault: str
    path: str

    def __str__(self) -> str:
        return f"{self.fault} at {self.call} {self.number} ({self.path})"


@dataclass(frozen=True)
class Outcome:
    """What became of a program under a fault. `met`: the log's line of the call that failed."""

    done: Done
    met: str | None
    hung: bool
    left: tuple[str, ...]  # processes of its session that outlived it


def find_points(
    words: Sequence[str], environment: Mapping[str, str], cwd: Path, prefixes: Sequence[Path]
) -> list[tuple[str, int, str]]:
    """Run it cleanly; the (call, number, path) of every call that touches something below `prefixes`."""
    log = cwd / "strace.log"
    done = _finish(_start(words, environment, cwd, log, []))[0]
    assert done.code == 0, f"the clean run fails: {done}"
    counts: Counter[tuple[str, str]] = Counter()
    found: dict[tuple[str, int], str] = {}
    for line in log.read_text(errors="replace").splitlines():
        match = _LINE.match(line)
        if not match:
            continue
        thread, call, rest = match.groups()
        counts[thread, call] += 1
        touched = [str(prefix) for prefix in prefixes if str(prefix) in rest]
        if touched:
            path = re.search(re.escape(touched[0]) + r'[^">,]*', rest)
            found.setdefault((call, counts[thread, call]), _short(path.group() if path else "", prefixes))
    return [(call, number, path) for (call, number), path in sorted(found.items())]


def sample(
    points: Sequence[tuple[str, int, str]], dice: random.Random, per_call: int, faults: Sequence[str] = FAULTS
) -> list[Point]:
    """Up to `per_call` numbers of each call and fault, one out of each equal part of its range."""
    chosen = []
    for call in sorted({call for call, _, _ in points}):
        here = [(number, path) for name, number, path in points if name == call]
        for fault in faults:
            parts = min(per_call, len(here))
            for part in range(parts):
                first, end = part * len(here) // parts, (part + 1) * len(here) // parts
                number, path = dice.choice(here[first:end])
                chosen.append(Point(call, number, fault, path))
    return chosen


def run_with(point: Point, words: Sequence[str], environment: Mapping[str, str], cwd: Path) -> Outcome:
    """Run it with that fault."""
    what = "signal=KILL" if point.fault == "KILL" else f"error={point.fault}"
    log = cwd / "strace.log"
    inject = ["-e", f"inject={point.call}:{what}:when={point.number}"]
    if point.fault != "KILL":
        inject.append("--seccomp-bpf")  # faster, but it silently disables signals
    process = _start(words, environment, cwd, log, inject)
    done, hung = _finish(process)
    left = _outlived(process.pid)
    return Outcome(done, _met(point, log), hung, left)


def _start(
    words: Sequence[str], environment: Mapping[str, str], cwd: Path, log: Path, inject: Sequence[str]
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            "strace",
            "-f",
            "-qqq",
            "-y",
            "-s",
            "0",
            "-o",
            str(log),
            "-e",
            f"trace={','.join(CALLS)}",
            *inject,
            *words,
        ],
        env=dict(environment),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="surrogateescape",
        start_new_session=True,
    )


def _finish(process: subprocess.Popen[str]) -> tuple[Done, bool]:
    hung = False
    try:
        out, err = process.communicate(timeout=_PATIENCE_S)
    except subprocess.TimeoutExpired:
        hung = True
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
    return Done(process.returncode, out, err), hung


def _met(point: Point, log: Path) -> str | None:
    lines = log.read_text(errors="replace").splitlines()
    if point.fault == "KILL":
        killed = [line for line in lines if "killed by SIGKILL" in line]
        if not killed:
            return None
        first = killed[0].split()[0]
        last = [line for line in lines if line.split()[0] == first and f" {point.call}(" in line]
        return last[-1] if last else killed[0]
    return next((line for line in lines if "(INJECTED)" in line), None)


def session_members(session: int) -> list[str]:
    """The living processes of a session, as `pid: command`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = (process / "stat").read_text().rsplit(")", 1)[1].split()
            if int(fields[3]) == session and fields[0] not in "ZX":
                found.append(f"{process.name}: {(process / 'cmdline').read_text()[-200:]}")
    return found


def _outlived(session: int) -> tuple[str, ...]:
    end = time.monotonic() + 5
    while (left := session_members(session)) and time.monotonic() < end:
        time.sleep(0.02)
    for line in left:
        with suppress(ProcessLookupError):
            os.kill(int(line.split(":")[0]), signal.SIGKILL)
    return tuple(left)


def _short(path: str, prefixes: Sequence[Path]) -> str:
    for prefix in prefixes:
        path = path.replace(str(prefix), prefix.name)
    return re.sub(r"[0-9a-f]{56}", "", path)
