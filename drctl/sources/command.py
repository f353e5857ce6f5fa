"""The standard output of a command as one file of a snapshot: a dump stream.

Invariant: a stream is complete only when the command wrote something and exited with 0; whatever
ends it, nothing of its process group is left running. No shell is ever involved.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar

from drctl.errors import SourceError

_PASSED_ALWAYS = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR")
_PIPE_BYTES = 1 << 20  # fewer wake-ups than with the kernel's 64 KiB
_COMPLAINT_BYTES = 8 << 10  # of stderr that is kept: its end
_COMPLAINT_SHOWN = 300  # characters of its last line in an error
_EXIT_POLL_MS = 20


@dataclass(frozen=True, slots=True)
class CommandOptions:
    """A command whose standard output is backed up.

    command: argv, program first; no shell. For a pipeline name the shell yourself:
        ["bash", "-o", "pipefail", "-c", "..."]. Never put a secret here: argv is public.
    filename: the path the stream gets in the snapshot, such as `shop.sql` or `/dumps/shop.sql`.
    environment: names of variables handed on, besides PATH, HOME, USER, LOGNAME, LANG, LC_ALL, TZ
        and TMPDIR; one that is not set is an error.
    timeout: how long the command may run in all.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    command: tuple[str, ...] = field(metadata={"description": "argv, program first; no shell"})
    filename: str = field(metadata={"description": "path of the stream in the snapshot"})
    environment: tuple[str, ...] = field(
        default=(), metadata={"description": "names of environment variables handed to the command"}
    )
    timeout: timedelta = field(
        default=timedelta(hours=24), metadata={"description": "how long the command may run in all"}
    )

    def __post_init__(self) -> None:
        """ValueError: the plan's reader adds file and line."""
        if not self.command or not self.command[0]:
            raise ValueError("no command to run")
        if any("\0" in argument for argument in self.command):
            raise ValueError("a command must not hold a NUL byte")
        parts = self.filename.removeprefix("/").split("/")
        if "\0" in self.filename or any(part in ("", ".", "..") for part in parts):
            raise ValueError(f"not a file name: {self.filename!r}")
        for name in self.environment:
            if not name or "=" in name or "\0" in name:
                raise ValueError(f"not the name of an environment variable: {name!r}")
        if self.timeout <= timedelta(0):
            raise ValueError(f"timeout must be positive: {self.timeout}")


class CommandSource:
    """Implements `ports.StreamSource` on the machine drctl runs on."""

    Options = CommandOptions

    def __init__(self, options: CommandOptions, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.options = options
        self._monotonic = monotonic

    @property
    def path(self) -> bytes:
        return b"/" + os.fsencode(self.options.filename.removeprefix("/"))

    def open(self) -> CommandStream:
        """Starts the command; SourceError when it cannot be. The thread that calls this must live
        as long as the stream: the kernel ends the command with it."""
        program = self.options.command[0]
        environment = _environment(os.environ, self.options.environment, program)
        deadline = self._monotonic() + self.options.timeout.total_seconds()
        try:
            process = subprocess.Popen(
                self.options.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd="/",
                env=environment,
                start_new_session=True,
                preexec_fn=_dies_with(os.getpid()),  # noqa: PLW1509 (it says why)
            )
        except OSError as exc:
            why = (exc.strerror or str(exc)).lower()
            raise SourceError(
                f"command {program!r} cannot be started: {why}",
                hint="name the program by its absolute path" if exc.errno == errno.ENOENT else None,
            ) from exc
        return CommandStream(process, program, deadline, self._monotonic)


class CommandStream:
    """Implements `ports.Stream`. Standard error is drained while output is waited for, so that a
    talkative command is never stuck."""

    def __init__(
        self, process: subprocess.Popen[bytes], program: str, deadline: float, monotonic: Callable[[], float]
    ) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._program = program
        self._deadline = deadline
        self._monotonic = monotonic
        self._output = process.stdout.fileno()
        self._errors = process.stderr.fileno()
        self._complaint = b""
        self._count = 0
        self._poll = select.poll()
        self._poll.register(self._output, select.POLLIN)
        self._poll.register(self._errors, select.POLLIN)
        with suppress(OSError):  # the user's share of pipe memory may be used up; 64 KiB work too
            fcntl.fcntl(self._output, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def readinto(self, buffer: memoryview, /) -> int:
        """SourceError when the time is over."""
        while True:
            ready = [descriptor for descriptor, _ in self._poll.poll(self._time_left_ms())]
            if self._errors in ready:
                self._drain_errors()
            if self._output in ready:
                count = os.readv(self._output, (buffer,))
                self._count += count
                return count
            if not ready:
                self._give_up_when_late()

    def finish(self) -> None:
        self._poll.unregister(self._output)
        while not _has_exited(self._process.pid):
            self._give_up_when_late()
            if self._poll.poll(_EXIT_POLL_MS):
                self._drain_errors()
        self._drain_rest()
        self.abort()  # reaps it, and ends what it left in the background
        status = self._process.returncode
        if status != 0:
            raise SourceError(
                f"command {self._program!r} {_ending(status)}{self._last_words()}",
                hint="run it by hand; its output so far is not a backup",
            )
        if self._count == 0:
            raise SourceError(
                f"command {self._program!r} exited with 0 but wrote nothing{self._last_words()}",
                hint="an empty dump is not a backup",
            )

    def abort(self) -> None:
        # until its leader is reaped, a process group's id cannot be anybody else's
        if self._process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def _time_left_ms(self) -> float:
        return max(0.0, self._deadline - self._monotonic()) * 1000

    def _give_up_when_late(self) -> None:
        if self._monotonic() < self._deadline:
            return
        self.abort()
        raise SourceError(
            f"command {self._program!r} did not end in time{self._last_words()}",
            hint="raise the source's timeout, or find out what it waits for",
        )

    def _drain_errors(self) -> bool:
        said = os.read(self._errors, 1 << 16)
        if not said:
            self._poll.unregister(self._errors)
            return False
        self._complaint = (self._complaint + said)[-_COMPLAINT_BYTES:]
        return True

    def _drain_rest(self) -> None:
        """What stands in the pipe once the command has exited; somebody else may still hold it."""
        for _ in range(_PIPE_BYTES >> 16):
            if not self._poll.poll(0) or not self._drain_errors():
                break

    def _last_words(self) -> str:
        lines = self._complaint.decode("utf-8", "backslashreplace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f": {_printable(last[:_COMPLAINT_SHOWN])}" if last else ""


def _environment(given: Mapping[str, str], names: tuple[str, ...], program: str) -> dict[str, str]:
    missing = [name for name in names if name not in given]
    if missing:
        raise SourceError(
            f"command {program!r} needs {', '.join(missing)}, not set in the environment",
            hint="set it for drctl, or drop it from the source's environment",
        )
    return {name: given[name] for name in (*_PASSED_ALWAYS, *names) if name in given}


def _dies_with(parent: int) -> Callable[[], None]:
    """Runs in the child before exec: the kernel kills it when drctl is killed (PR_SET_PDEATHSIG).

    Everything is looked up beforehand and no lock is taken, which is what makes it safe after a
    fork from a process with threads; PyDLL does not even give the GIL back."""
    set_option, kill_me, get_parent, leave = (
        ctypes.PyDLL(None).prctl,
        int(signal.SIGKILL),
        os.getppid,
        os._exit,
    )

    def prepare() -> None:
        set_option(1, kill_me)
        if get_parent() != parent:  # it died in between: no signal will come
            leave(1)

    return prepare


def _has_exited(process_id: int) -> bool:
    """Leaves it to be reaped, so that its id stays taken."""
    return os.waitid(os.P_PID, process_id, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def _ending(status: int) -> str:
    if status >= 0:
        return f"exited with {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"


def _printable(text: str) -> str:
    """Control characters, escape sequences and bidi marks shown instead of obeyed."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )
