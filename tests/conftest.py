"""Fixtures every suite may use: real servers, started once per session where one is asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from tests.servers.ceph import ceph_server
from tests.servers.s3 import S3Server, moto_server, rclone_server
from tests.servers.ssh import SshServer, ssh_server

pytest.register_assert_rewrite("drctl.testing.storage_contract", "drctl.testing.source_contract")

# programs that come as Python packages lie beside the interpreter
# and what only root runs (losetup, mkfs) beside what everybody does, whatever PATH a shell had
os.environ["PATH"] = f"{os.path.dirname(sys.executable)}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    """OpenSSH's server; the current user may log in."""
    with ssh_server(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture(scope="session")
def s3_moto() -> Iterator[S3Server]:
    """moto: an S3 server that honours conditional PUT."""
    with moto_server() as server:
        yield server


@pytest.fixture(scope="session")
def s3_rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """rclone: a real S3 server that ignores conditional PUT."""
    with rclone_server(tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.fixture(scope="session")
def s3_ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Ceph's gateway: a real S3 server with Object Lock and conditional PUT."""
    with ceph_server(tmp_path_factory.mktemp("ceph")) as server:
        yield server


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests over one Ceph cluster stay with one worker: two clusters at once starve each other."""
    for item in items:
        if "s3_ceph" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("ceph"))
