"""Starting a server as a child process, and ending exactly that one."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest


def require(program: str, package: str) -> str:
    """The program's path; the test FAILS, with the command that mends it, where it is missing."""
    for directory in (*os.environ.get("PATH", "").split(":"), "/usr/sbin", "/usr/bin", "/sbin"):
        path = os.path.join(directory, program)
        if os.access(path, os.X_OK):
            return path
    pytest.fail(f"{program} is missing: apt-get install -y --no-install-recommends {package}", pytrace=False)


def free_port() -> int:
    """A loopback port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running(
    arguments: Sequence[str], ready: Callable[[], bool], log: Path, *, timeout_s: float = 30.0
) -> Iterator[subprocess.Popen[bytes]]:
    """The started server, once `ready`; ended by its pid with SIGTERM, then SIGKILL."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=_end_with_parent,  # noqa: PLW1509 - a killed test run must not leave servers behind
        )
    try:
        deadline = time.monotonic() + timeout_s
        while not ready():
            if child.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{arguments[0]} did not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)
        yield child
    finally:
        end(child)


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def end(child: subprocess.Popen[bytes]) -> None:
    """End one child: SIGTERM, and after five seconds SIGKILL."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
