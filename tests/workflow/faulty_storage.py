"""A storage whose faults reach across forks: it counts calls in shared memory."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from drctl.ports import Buffer, Storage, StoredFile


class FaultyStorage:
    """Passes on to `storage`; at the `at`-th save (and all later ones) `fault` is called instead.
    The log names the saved keys' folders in order, over all processes."""

    def __init__(
        self, storage: Storage, at: int | None = None, fault: Callable[[], None] | None = None
    ) -> None:
        self._storage = storage
        self._at = at
        self._fault = fault
        self._saves = multiprocessing.get_context("fork").Value("i", 0)
        descriptor, self._log = tempfile.mkstemp()
        os.close(descriptor)

    @property
    def saves(self) -> int:
        """How often `save` was called, in all processes."""
        return int(self._saves.value)

    @property
    def log(self) -> list[str]:
        """What was saved, in the order in which it was finished."""
        return Path(self._log).read_text().split()

    @property
    def location(self) -> str:
        return self._storage.location

    def save(self, key: str, parts: Sequence[Buffer]) -> None:
        with self._saves.get_lock():
            self._saves.value += 1
            number = self._saves.value
        if self._at is not None and self._fault is not None and number >= self._at:
            self._fault()
        self._storage.save(key, parts)
        with open(self._log, "a") as log:  # one short appending write is atomic
            log.write(key.partition("/")[0] + "\n")

    def load(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        return self._storage.load(key, offset, length)

    def stat(self, key: str) -> StoredFile:
        return self._storage.stat(key)

    def list(self, prefix: str) -> Iterator[StoredFile]:
        return self._storage.list(prefix)

    def delete(self, key: str) -> None:
        self._storage.delete(key)

    def refuses_overwrite(self) -> bool:
        return self._storage.refuses_overwrite()

    def retains_files(self) -> bool | None:
        return self._storage.retains_files()

    def close(self) -> None:
        self._storage.close()
