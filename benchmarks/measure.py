"""Runs one program to its end and measures it: wall time, and the memory of all its processes.

Invariant: a program that fails is an error, never a figure. Memory is sampled in the same run: PSS
counts what processes share once, so the sum over a tree is what the machine gives for it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_SHARE = 0.03  # at most this part of a core goes to sampling
_SHORTEST_PAUSE_S = 0.02


@dataclass(frozen=True)
class Measurement:
    """`peak_pss` over the whole process tree, `max_rss` of its largest process; bytes."""

    wall_s: float
    peak_pss: int
    max_rss: int
    samples: int


def measure(argv: Sequence[str], environment: Mapping[str, str], folder: Path) -> Measurement:
    """Run `argv` in `folder` with the page cache as it is, and all earlier writes on disk."""
    os.sync()
    with open(folder / "output.txt", "w+b") as output:
        start = time.monotonic()
        process = subprocess.Popen(
            argv,
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        sampler = _Sampler(process.pid)
        sampler.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        sampler.finish()
        if process.returncode:
            output.seek(0)
            text = output.read()[-2000:].decode(errors="replace")
            sys.exit(f"{' '.join(argv)}\nfailed with {process.returncode}:\n{text}")
    return Measurement(wall_s, max(sampler.peak, 0), usage.ru_maxrss * 1024, sampler.samples)


class _Sampler(threading.Thread):
    def __init__(self, root: int) -> None:
        super().__init__(name="memory-sampler", daemon=True)
        self._root = root
        self._stop_event = threading.Event()
        self.peak = 0
        self.samples = 0

    def run(self) -> None:
        while not self._stop_event.is_set():
            begin = time.thread_time()
            total = sum(map(_pss_of, _descendants(self._root)))
            self.peak = max(self.peak, total)
            self.samples += 1
            spent = time.thread_time() - begin
            self._stop_event.wait(max(_SHORTEST_PAUSE_S, spent / _SHARE))

    def finish(self) -> None:
        self._stop_event.set()
        self.join()


def _descendants(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                children = Path(f"/proc/{pid}/task/{thread}/children").read_text()
                for child in children.split():
                    yield from _descendants(int(child))


def _pss_of(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return 0  # it has just ended
    return 0
