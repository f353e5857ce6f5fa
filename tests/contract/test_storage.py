"""One contract over every storage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from drctl.clock import SystemClock
from drctl.ports import Storage
from drctl.storage.local import LocalOptions, LocalStorage
from drctl.storage.sftp import SftpOptions, SftpStorage
from drctl.testing.memory_storage import MemoryStorage
from drctl.testing.storage_contract import StorageContract
from tests.servers.s3 import S3Server
from tests.servers.ssh import SshServer


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


class TestS3OnMoto(StorageContract):
    @pytest.fixture
    def storage(self, s3_moto: S3Server) -> Storage:
        return s3_moto.storage(prefix="some/where")


class TestS3OnRclone(StorageContract):
    @pytest.fixture
    def storage(self, s3_rclone: S3Server) -> Storage:
        return s3_rclone.storage()


class TestSftp(StorageContract):
    @pytest.fixture
    def storage(self, sshd: SshServer, tmp_path: Path) -> Iterator[Storage]:
        storage = SftpStorage(SftpOptions(str(tmp_path)), sshd.remote())
        yield storage
        storage.close()
