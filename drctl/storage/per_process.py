"""One value per process: locks, semaphores and connections that must not cross a fork.

Invariant: a forked child and an unpickled copy never see the value of another process; the old
one is forgotten without being closed, because its peer still belongs to the parent.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class PerProcess(Generic[T]):
    """Makes its value with `make` once in each process. `make` must be cheap and without effect:
    of two threads that come first together, one result is thrown away. Not picklable."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._values: dict[int, T] = {}

    def get(self) -> T:
        """This process's value."""
        pid = os.getpid()
        try:
            return self._values[pid]
        except KeyError:
            # setdefault is one step: all threads of a new process get the same value, without a
            # lock that a fork could copy in its locked state
            return self._values.setdefault(pid, self._make())

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("pickle what it was made from, not the value of one process")
