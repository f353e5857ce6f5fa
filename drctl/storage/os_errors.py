"""What an operating system's error number means for a storage, as one table.

Invariant: every OSError becomes exactly one of the errors that `ports.Storage` names.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from drctl.errors import AbsentError, AlreadyExistsError, DrctlError, StorageError, UnreachableError

_FULL = "free space there, or prune the repository"
_DENIED = "check the owner and mode of the repository's directories"
_BROKEN = "the disk or its controller reports errors: look at dmesg, and replace it"
_HINTS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: "raise the quota, or prune the repository",
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EROFS: "mount it writable; a file system turns read-only after disk errors, see dmesg",
    errno.EIO: _BROKEN,
    errno.EUCLEAN: "the file system is damaged: run its fsck",
    errno.EFBIG: "the file system or a limit (ulimit -f) does not take files this large",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENOTDIR: "something that is no directory lies on the path",
    errno.ELOOP: "a symbolic link lies where a file of the repository must be",
}
_MAY_PASS = frozenset(
    {errno.ETIMEDOUT, errno.ESTALE, errno.EAGAIN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN,
     errno.ENETUNREACH, errno.ENOTCONN, errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED,
     errno.EPIPE, errno.ESHUTDOWN}
)  # fmt: skip


def translate(error: OSError, location: str, doing: str) -> DrctlError:
    """The storage error for `error`, met while `doing` (`"save data/ab/..."`) at `location`."""
    reason = os.strerror(error.errno).lower() if error.errno else str(error).lower()
    message = f"{location}: cannot {doing}: {reason}"
    match error.errno:
        case errno.ENOENT:
            return AbsentError(message)
        case errno.EEXIST:
            return AlreadyExistsError(message)
        case number if number in _MAY_PASS:
            return UnreachableError(message, hint="is the file server up?")
        case number:
            return StorageError(message, hint=_HINTS.get(number or 0))


@contextmanager
def translated(location: str, doing: str) -> Iterator[None]:
    """Turn an OSError of the block into a storage error."""
    try:
        yield
    except OSError as exc:
        raise translate(exc, location, doing) from exc
