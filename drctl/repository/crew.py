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
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
_KEPT = 64 * 2**20
_inherited: Any = None  # in a worker: what its crew was made with


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))


class Crew(Generic[C]):
    """Forked workers around one context. Make it after the context is complete. They are forked when
    the first task comes; `forked` is called then, to start threads that must not be forked along."""

    def __init__(
        self, context: C, workers: int | None = None, *, forked: Callable[[], None] = lambda: None
    ) -> None:
        self._workers = workers or processors()
        self._forked: Callable[[], None] | None = forked
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
                    self._tell_forked()
                if not flying:
                    return
                done, flying = wait(flying, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BrokenProcessPool as exc:
            raise DrctlError("a worker process died", hint="is the machine out of memory? see dmesg") from exc

    def _tell_forked(self) -> None:
        forked, self._forked = self._forked, None
        if forked is not None:
            forked()

    def __enter__(self) -> Crew[C]:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)


def become_worker(parent: int) -> None:
    """What a forked worker does first. It dies with `parent`, and leaves interrupts to it."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it died before the line above
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # packs and blobs come and go by the thousand: without this, each is mapped and faulted in anew
    libc.mallopt(_M_MMAP_THRESHOLD, _KEPT)
    libc.mallopt(_M_TRIM_THRESHOLD, _KEPT)


def share_arena() -> None:
    """Let all threads allocate from one arena: with one each, every thread keeps what it once held,
    which cost 45 MB on large files and gained nothing. Before the first thread is started."""
    ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def _begin(context: object, parent: int) -> None:
    global _inherited  # noqa: PLW0603 - the one thing a forked worker inherits
    become_worker(parent)
    _inherited = context


def _do(work: Callable[[Any, T], R], task: T) -> R:
    return work(_inherited, task)
