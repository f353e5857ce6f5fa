"""One contract over every storage."""

from __future__ import annotations

from pathlib import Path

import pytest

from drctl.clock import SystemClock
from drctl.ports import Storage
from drctl.storage.local import LocalOptions, LocalStorage
from drctl.testing.memory_storage import MemoryStorage
from drctl.testing.storage_contract import StorageContract


@pytest.fixture
def local(tmp_path: Path) -> LocalStorage:
    """An empty storage in a directory that exists."""
    return LocalStorage(LocalOptions(str(tmp_path)))


class TestLocal(StorageContract):
    @pytest.fixture
    def storage(self, local: LocalStorage) -> Storage:
        return local


class TestMemory(StorageContract):
    shares_processes = False

    @pytest.fixture
    def storage(self) -> Storage:
        return MemoryStorage(SystemClock())
