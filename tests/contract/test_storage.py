"""One contract over every storage, each on a real server, and over every wrapper."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from drctl.clock import SystemClock
from drctl.ports import Storage
from drctl.storage.local import LocalOptions, LocalStorage
from drctl.storage.sftp import SftpOptions, SftpStorage
from drctl.storage.wrappers import Limited, Retrying, Throttled
from drctl.testing.memory_storage import MemoryStorage
from drctl.testing.storage_contract import StorageContract
from tests.servers.s3 import S3Server
from tests.servers.ssh import SshServer


class TestLocal(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        return LocalStorage(LocalOptions(str(tmp_path)))


class TestMemory(StorageContract):
    shares_processes = False

    @pytest.fixture
    def storage(self) -> Storage:
        return MemoryStorage(SystemClock())


class TestSftp(StorageContract):
    @pytest.fixture
    def storage(self, sshd: SshServer, tmp_path: Path) -> Iterator[Storage]:
        storage = SftpStorage(SftpOptions(str(tmp_path)), sshd.remote())
        yield storage
        storage.close()


class TestS3OnMoto(StorageContract):
    @pytest.fixture
    def storage(self, s3_moto: S3Server) -> Iterator[Storage]:
        storage = s3_moto.storage(prefix="some/where")
        yield storage
        storage.close()


class TestS3OnRclone(StorageContract):
    keeps_writers_apart = False  # it ignores If-None-Match (safety line 14)

    @pytest.fixture
    def storage(self, s3_rclone: S3Server) -> Iterator[Storage]:
        storage = s3_rclone.storage()
        yield storage
        storage.close()


class TestS3OnCeph(StorageContract):
    @pytest.fixture
    def storage(self, s3_ceph: S3Server) -> Iterator[Storage]:
        storage = s3_ceph.storage(prefix="some/where")
        yield storage
        storage.close()


WRAPPERS: dict[str, Callable[[Storage], Storage]] = {
    "retrying": lambda storage: Retrying(storage, SystemClock(), timedelta(seconds=5)),
    "limited": lambda storage: Limited(storage, 1),
    "throttled": lambda storage: Throttled(storage, SystemClock(), 10**12, 10**12),
    "all": lambda storage: Retrying(
        Throttled(Limited(storage, 2), SystemClock(), 10**12, None), SystemClock(), timedelta(seconds=5)
    ),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
class TestWrapped(StorageContract):
    @pytest.fixture
    def storage(self, wrapper: str, tmp_path: Path) -> Storage:
        return WRAPPERS[wrapper](LocalStorage(LocalOptions(str(tmp_path))))
