"""Worker processes that share what was loaded before they were forked.

Invariant: what the workers need (the repository, its index) is inherited, never copied; they end
with their parent, however it ends, and at most two tasks a worker are in flight.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Generic, TypeVar

from drctl.errors import DrctlError

C = TypeVar("C")
T = TypeVar("T")
R = TypeVar("R")
_PR_SET_PDEATHSIG = 1
_inherited: Any = None  # in a worker: what its crew was made with


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))


class Crew(Generic[C]):
    """Forked workers around one context. Make it after the context is complete."""

    def __init__(self, context: C, workers: int | None = None) -> None:
        self._workers = workers or processors()
        self._pool = ProcessPoolExecutor(
            self._workers, multiprocessing.get_context("fork"), _begin, (context, os.getpid())
        )

    def run(self, work: Callable[[C, T], R], next_task: Callable[[], T | None]) -> Iterator[R]:
        """Results as they come. `next_task` gives None while nothing is to do; it ends when that is
        so and nothing is in flight. `work` is a module's function; its errors are raised here."""
        flying: set[Future[R]] = set()
        try:
            while True:
                while len(flying) < 2 * self._workers and (task := next_task()) is not None:
                    flying.add(self._pool.submit(_do, work, task))
                if not flying:
                    return
                done, flying = wait(flying, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BrokenProcessPool as exc:
            raise DrctlError("a worker process died", hint="is the machine out of memory? see dmesg") from exc

    def __enter__(self) -> Crew[C]:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)


def _begin(context: object, parent: int) -> None:
    global _inherited  # noqa: PLW0603 - the one thing a forked worker inherits
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it died before the line above
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    _inherited = context


def _do(work: Callable[[Any, T], R], task: T) -> R:
    return work(_inherited, task)
