"""Forked worker processes, each with a channel and a few tasks ahead.

Invariant: a worker that dies is noticed and ends the run; no worker outlives the pool.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from drctl.errors import DrctlError, SourceError
from drctl.repository.archive_job import Answer, Job, Task
from drctl.repository.archive_worker import serve
from drctl.repository.crew import processors, share_arena

_TASKS_AHEAD = 3  # a worker never waits for its next task
_PATIENCE_S = 5.0


class WorkerPool:
    """As many workers as there are cores. Make it before starting threads."""

    def __init__(self, job: Job) -> None:
        share_arena()
        # forked, so that the blob table and the source need not be copied or sent
        context = multiprocessing.get_context("fork")
        self._tasks: dict[Connection, int] = {}
        self._processes: list[BaseProcess] = []
        gc.collect()
        gc.freeze()  # what is shared now stays shared: the collector does not write to it
        for _ in range(processors()):
            ours, theirs = context.Pipe()
            # a worker closes its siblings' ends: it must see the end of its own when we are gone
            process = context.Process(
                target=_run, args=(job, theirs, os.getpid(), [*self._tasks, ours]), daemon=True
            )
            process.start()
            theirs.close()
            self._tasks[ours] = 0
            self._processes.append(process)
        gc.unfreeze()

    @property
    def busy(self) -> bool:
        """Whether any worker has a task."""
        return any(self._tasks.values())

    def offer(self, stack: list[Task]) -> None:
        """Take tasks from the top of `stack` while a worker has room."""
        while stack:
            channel = min(self._tasks, key=self._tasks.__getitem__)
            if self._tasks[channel] >= _TASKS_AHEAD:
                return
            self._tasks[channel] += 1
            _send(channel, stack.pop())

    def answers(self, timeout_s: float) -> Iterator[Answer]:
        """What the busy workers have answered; waits for the first at most `timeout_s`."""
        for channel in wait([channel for channel, tasks in self._tasks.items() if tasks], timeout_s):
            assert isinstance(channel, Connection)
            answer = _receive(channel)
            self._tasks[channel] -= 1
            yield answer

    def finish(self) -> Iterator[Answer]:
        """Tell all to store what is left over, and wait for it."""
        for channel in self._tasks:
            _send(channel, None)
        for channel in self._tasks:
            yield _receive(channel)

    def close(self) -> None:
        """End all of them, patiently where they have finished, at once where the run failed."""
        for channel in self._tasks:
            channel.close()
        for process in self._processes:
            process.join(0 if self.busy else _PATIENCE_S)
            if process.is_alive():
                process.kill()
                process.join()


def _run(job: Job, channel: Connection, parent: int, others: list[Connection]) -> None:
    for other in others:
        other.close()
    serve(job, channel, parent)


def _send(channel: Connection, message: Task | None) -> None:
    try:
        channel.send(message)
    except OSError as exc:
        raise _died() from exc


def _receive(channel: Connection) -> Answer:
    try:
        answer = channel.recv()
    except (EOFError, OSError) as exc:
        raise _died() from exc
    if isinstance(answer, DrctlError):
        raise answer
    assert isinstance(answer, Answer)
    return answer


def _died() -> SourceError:
    return SourceError("a worker process of this backup died", hint="was it killed for want of memory?")
