"""Ctrl-C, SIGTERM and SIGHUP end a run in order.

Invariant: the first signal becomes a KeyboardInterrupt in the main thread, so every `finally`
runs (locks go, temporary files go); the second only warns; the third gives up on clean-up. SIGHUP
counts only when the terminal is gone: restic sends it to see whether the owner of a lock is alive.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from drctl.cli.output import Output

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def stop_on_signals(out: Output) -> Iterator[None]:
    """Handle the signals while the block runs; what was ignored (nohup) stays ignored."""
    owner = os.getpid()
    had_terminal = _has_terminal()
    seen = 0

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal seen
        if number == signal.SIGHUP and not (had_terminal and not _has_terminal()):
            return
        if os.getpid() != owner:
            # a forked worker inherited this handler: it dies as if there were none
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        seen += 1
        if seen == 2:
            out.interject("still cleaning up; once more, and it ends now and may leave a lock behind")
            return
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
