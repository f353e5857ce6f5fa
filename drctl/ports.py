"""Every seam on one page: what the inside asks of the world.

Adapters implement these; `wiring` hands them in; `tests/contract` holds one suite per port.
Adapters are thin: no retry, log, cache or limit inside one (wrappers add them).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    from paramiko import SFTPClient

Buffer: TypeAlias = bytes | bytearray | memoryview


# --- storage ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file in a storage. `modified` is the storage's own clock, UTC: our receipt time."""

    key: str
    size: int
    modified: datetime


class Storage(Protocol):
    """Where a repository's files lie: a flat map from keys (`data/ab/abcd...`) to bytes.

    Keys are relative, `/`-separated, of `[a-z0-9_.-]` segments that start with no dot; anything else
    is a StorageError.
    Safe to use from several threads. Instances can be pickled and forked: a copy in another
    process opens its own connections. Errors: AbsentError, AlreadyExistsError, StorageError
    (for good: full, denied), UnreachableError (may pass: no answer, 503, reset, timeout).
    """

    @property
    def location(self) -> str:
        """Where it is, for messages; never holds a secret."""
        ...

    def save(self, key: str, parts: Sequence[Buffer]) -> None:
        """Store the concatenated parts: all or nothing, durable on return (fsynced or
        acknowledged with a checksum), never replacing: AlreadyExistsError. A failed save leaves
        no file under `key`, but may leave a temporary one that `list` does not show."""
        ...

    def load(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """`length` bytes from `offset` (all to the end when None). AbsentError when the key is not
        there. Returns fewer bytes only when the file ends earlier; a transfer that was cut short
        is an UnreachableError, never a short result."""
        ...

    def stat(self, key: str) -> StoredFile:
        """Size and receipt time of one file; AbsentError when it is not there."""
        ...

    def list(self, prefix: str) -> Iterator[StoredFile]:
        """All files whose key starts with `prefix` (`""` or ends in `/`), in no order, each once.
        Temporary files of interrupted saves are left out. A listing that fails midway raises:
        an error is never an empty or a short result."""
        ...

    def delete(self, key: str) -> None:
        """Remove one file, durable on return. No error when it is already absent."""
        ...

    def refuses_overwrite(self) -> bool:
        """Proves by trying on a key of its own whether two writers of one key are kept apart by
        the storage itself (S3: conditional PUT honoured)."""
        ...

    def retains_files(self) -> bool | None:
        """Proves by trying whether the storage itself protects a saved file from whoever holds our
        credentials (S3: Object Lock). None where no retention is configured, so none is claimed.
        May take half a minute."""
        ...

    def close(self) -> None:
        """Give connections back. The storage may be used again: it reconnects."""
        ...


# --- sources ---------------------------------------------------------------------------


class Entry(NamedTuple):
    """One directory entry as the source shows it: stat(2) values, times in ns since the epoch.

    Where a source cannot know a value (SFTP has no inode or ctime) it is 0."""

    name: bytes
    mode: int  # st_mode: POSIX type and permission bits
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int
    links: int
    uid: int
    gid: int
    rdev: int = 0


class Reader(Protocol):
    """An opened file of a source."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill from the front; 0 at the end. OSError when it cannot be read."""
        ...

    def hole(self, offset: int) -> int:
        """How many bytes from `offset` on are known to be a hole (zeros nobody stored); 0 if none
        or unknown."""
        ...

    def skip(self, count: int) -> None:
        """Move the read position `count` bytes on, over a hole."""
        ...

    def changed(self) -> bool:
        """Whether the file changed (size, mtime, ctime) since it was opened."""
        ...

    def extended_attributes(self) -> Sequence[tuple[bytes, bytes]]:
        """As `Directory.extended_attributes`, at a tenth of its cost since the file is open."""
        ...

    def close(self) -> None: ...


class Directory(Protocol):
    """An opened directory of a source. Everything is looked up relative to its descriptor, so a
    directory swapped for a symlink meanwhile is not followed."""

    @property
    def entries(self) -> Sequence[Entry]:
        """What is in it and not excluded, sorted by name bytes. Listed when first asked for: whoever
        has the entries already opens a huge directory without paying for its listing. OSError."""
        ...

    @property
    def unreadable(self) -> Sequence[tuple[bytes, str]]:
        """Names that could be listed but not looked at, each with its reason."""
        ...

    def open(self, entry: Entry) -> Reader:
        """Open a regular file without following a symlink or blocking on a FIFO; OSError when it
        cannot be opened, SwappedError when it is no longer the listed file."""
        ...

    def read_link(self, entry: Entry) -> bytes: ...

    def extended_attributes(self, entry: Entry) -> Sequence[tuple[bytes, bytes]]:
        """xattrs (ACLs are among them), as the system lists them: restic keeps that order, and a
        tree sorted otherwise would have another id. Empty where unsupported."""
        ...

    def owner_names(self, uid: int, gid: int) -> tuple[str, str]:
        """User and group names, empty when unknown."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class SwappedError(OSError):
    """A file or directory is no longer the one that was listed."""


@runtime_checkable
class TreeSource(Protocol):
    """A file tree that can be listed and read in any order, from several processes at once.

    Picklable and fork-safe."""

    @property
    def roots(self) -> Sequence[bytes]:
        """Absolute, normalised paths that are backed up; a root may be a file."""
        ...

    @property
    def block_size(self) -> int | None:
        """Files are cut in fixed blocks of this many bytes (images); None: content-defined."""
        ...

    @property
    def trusts_metadata(self) -> bool:
        """Whether unchanged (ctime, mtime, size, inode) means unchanged content, so that an
        incremental need not read it. False for block devices."""
        ...

    def open_directory(self, path: bytes) -> Directory:
        """OSError when it cannot be read; SwappedError when it is not a directory any more."""
        ...

    def open_root(self, path: bytes) -> Directory:
        """The directory that holds the one entry `path` (roots and the chain above them)."""
        ...

    def close(self) -> None: ...


class StreamSource(Protocol):
    """A source that can only be read once, from front to end, as one file."""

    @property
    def path(self) -> bytes:
        """The absolute path the stream gets in the snapshot."""
        ...

    def open(self) -> Stream: ...


class Stream(Protocol):
    """The opened stream."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill from the front; 0 at the end."""
        ...

    def finish(self) -> None:
        """Called after the end: SourceError unless the stream is complete (exit code 0, not empty)."""
        ...

    def abort(self) -> None:
        """End it now, with everything it started."""
        ...


Source: TypeAlias = TreeSource | StreamSource


# --- the rest --------------------------------------------------------------------------


class Remote(Protocol):
    """A host reached by SSH, its key known beforehand. Picklable; reconnects in a new process."""

    @property
    def address(self) -> str:
        """`user@host:port`, for messages."""
        ...

    def sftp(self) -> SFTPClient:
        """A file channel of this thread, opened once; UnreachableError or RefusedError (host key)."""
        ...

    def close(self) -> None: ...


class Cache(Protocol):
    """Files that only spare time. Losing one is never an error."""

    def load(self, name: str) -> bytes | None:
        """What was saved under the name, whole; None when there is nothing."""
        ...

    def save(self, name: str, data: bytes) -> None:
        """Keep it if possible, replacing what was there."""
        ...


class Clock(Protocol):
    """The only reader of time."""

    def now(self) -> datetime:
        """The instant, aware, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never run backwards; for durations only."""
        ...

    def sleep(self, seconds: float) -> None: ...
