"""Writing index files over packs as they are stored, now and then and at the end.

Invariant: an index file names packs only that are stored.
"""

from __future__ import annotations

from collections.abc import Callable

from drctl.errors import DrctlError
from drctl.ports import Clock
from drctl.repository.index import BLOBS_PER_INDEX, join_index
from drctl.repository.repo import FileKind, Repository
from drctl.repository.uploads import StoredPack

_EVERY_S = 300.0  # an aborted run is continued from its last index


class IndexWriter:
    """Collects stored packs. `before_write` is called before each write and raises to abort."""

    def __init__(self, repository: Repository, clock: Clock, before_write: Callable[[], None]) -> None:
        self._repository = repository
        self._clock = clock
        self._before_write = before_write
        self._fragments: list[bytes] = []
        self._blobs = 0
        self._blobs_written = 0
        self._written_at = clock.monotonic()

    def add(self, packs: list[StoredPack]) -> None:
        """Note stored packs; writes when there are many, or the last index file is old."""
        for pack in packs:
            self._fragments.append(pack.fragment)
            self._blobs += pack.blobs
        due = self._clock.monotonic() - self._written_at > _EVERY_S
        if self._blobs >= BLOBS_PER_INDEX or (due and self._fragments):
            self.flush()

    def flush(self) -> None:
        """Write what is in no index file yet."""
        if self._fragments:
            self._before_write()
            self._repository.save_json(FileKind.INDEX, join_index(self._fragments))
            self._blobs_written += self._blobs
        self._fragments, self._blobs, self._written_at = [], 0, self._clock.monotonic()

    def finish(self, stored_blobs: int) -> None:
        """Write the last index file. `stored_blobs` is how many blobs the run handed to its packers:
        one that no index names would be lost without a word, so the sums must agree."""
        self.flush()
        if self._blobs_written != stored_blobs:
            raise DrctlError(
                f"internal error: {stored_blobs} blobs were stored, {self._blobs_written} are in the index",
                hint="no snapshot was written; please report this",
            )
