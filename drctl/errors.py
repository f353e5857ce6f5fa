"""Errors by what the CALLER can do about them, each with its exit code and a hint.

Invariant: every error that reaches a user is one line (what failed, on what value) and,
where something can be done, one hint. Foreign exceptions are translated once, in the
adapter that meets them.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a drctl process returns. Stable: scripts and monitors rely on these numbers."""

    OK = 0
    FAILED = 1
    USAGE = 2
    INCOMPLETE = 3
    OBJECTIVE_MISSED = 4
    VERIFICATION_FAILED = 5
    NO_REPOSITORY = 10
    LOCKED = 11
    WRONG_KEY = 12
    UNREACHABLE = 20
    CORRUPT = 30
    REFUSED = 40
    SKIPPED = 75
    INTERRUPTED = 130


EXIT_CODE_MEANINGS: dict[ExitCode, str] = {
    ExitCode.OK: "done",
    ExitCode.FAILED: "failed",
    ExitCode.USAGE: "usage or plan error",
    ExitCode.INCOMPLETE: "incomplete: some of the source could not be read",
    ExitCode.OBJECTIVE_MISSED: "objective missed",
    ExitCode.VERIFICATION_FAILED: "verification failed",
    ExitCode.NO_REPOSITORY: "no repository there",
    ExitCode.LOCKED: "repository locked",
    ExitCode.WRONG_KEY: "wrong key",
    ExitCode.UNREACHABLE: "unreachable",
    ExitCode.CORRUPT: "corrupt data found",
    ExitCode.REFUSED: "refused by a safety rule",
    ExitCode.SKIPPED: "skipped",
    ExitCode.INTERRUPTED: "interrupted",
}


class DrctlError(Exception):
    """Base of all errors a user may see: a lower-case message and an optional hint."""

    exit_code = ExitCode.FAILED

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        # errors cross process borders in the archive pipeline; keyword arguments must survive
        return (_rebuild, (type(self), self.message, self.hint))


def _rebuild(kind: type[DrctlError], message: str, hint: str | None) -> DrctlError:
    error = kind.__new__(kind)
    DrctlError.__init__(error, message, hint=hint)
    return error


class UsageError(DrctlError):
    """The command line or the plan asks for something that cannot be."""

    exit_code = ExitCode.USAGE


class NoRepositoryError(DrctlError):
    """Nothing that is a repository lies at the location."""

    exit_code = ExitCode.NO_REPOSITORY


class LockedError(DrctlError):
    """Somebody else holds a lock, or ours was lost. Wait, or unlock a stale one."""

    exit_code = ExitCode.LOCKED


class WrongKeyError(DrctlError):
    """No key file of the repository opens with this key."""

    exit_code = ExitCode.WRONG_KEY


class UnreachableError(DrctlError):
    """A storage, host or service did not answer within its bounds. Trying later may help."""

    exit_code = ExitCode.UNREACHABLE


class CorruptError(DrctlError):
    """Stored bytes are not what they must be. Names the file; nothing was repaired silently."""

    exit_code = ExitCode.CORRUPT


class RefusedError(DrctlError):
    """A safety rule forbids it. The hint says what would allow it."""

    exit_code = ExitCode.REFUSED


class VerificationError(DrctlError):
    """What was restored or copied is not what was stored."""

    exit_code = ExitCode.VERIFICATION_FAILED


class SourceError(DrctlError):
    """A source could not be read at all: the backup failed and made no snapshot."""


class StorageError(DrctlError):
    """A storage refused or failed for good: retrying does not help (full, denied, misused)."""


class AbsentError(StorageError):
    """No file of that key is in the storage."""


class AlreadyExistsError(StorageError):
    """A file of that key is in the storage; drctl never replaces one."""


class InterruptedRunError(DrctlError):
    """The run was asked to stop (Ctrl-C, SIGTERM)."""

    exit_code = ExitCode.INTERRUPTED
