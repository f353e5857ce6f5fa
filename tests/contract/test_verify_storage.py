"""`verify_storage` passes what is sound, and names what is not (safety lines 13, 14)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from drctl.errors import StorageError, UnreachableError
from drctl.ports import Buffer, StoredFile
from drctl.storage.local import LocalOptions, LocalStorage
from drctl.storage.sftp import SftpOptions, SftpStorage
from drctl.storage.verify import Finding, verify_storage
from drctl.testing.memory_storage import MemoryStorage
from tests.servers.s3 import S3Server
from tests.servers.ssh import SshServer


def by_name(findings: list[Finding]) -> dict[str, bool | None]:
    return {finding.what: finding.passed for finding in findings}


ALL = {
    "what was saved is loaded",
    "ranges are loaded",
    "a taken key is refused",
    "writers are kept apart",
    "what is not there is absent",
    "listings are complete",
    "deleting is final and can be repeated",
    "retention holds",
    "deleting removes the files of this verification",
}


def test_a_directory_passes_and_nothing_is_left(tmp_path: Path) -> None:
    storage = LocalStorage(LocalOptions(str(tmp_path)))
    storage.save("config", [b"x"])
    found = by_name(verify_storage(storage))
    assert found == dict.fromkeys(ALL, True) | {"retention holds": None}
    assert [file.key for file in storage.list("")] == ["config"]


def test_sftp_passes(sshd: SshServer, tmp_path: Path) -> None:
    storage = SftpStorage(SftpOptions(str(tmp_path)), sshd.remote())
    assert by_name(verify_storage(storage)) == dict.fromkeys(ALL, True) | {"retention holds": None}
    storage.close()


def test_ceph_with_object_lock_keeps_files_but_not_writers_apart(s3_ceph: S3Server) -> None:
    bucket = s3_ceph.bucket_of_its_own(ObjectLockEnabledForBucket=True)
    storage = s3_ceph.storage(bucket, object_lock_days=1, object_lock_mode="compliance")
    found = by_name(verify_storage(storage))
    assert found == dict.fromkeys(ALL, True) | {"writers are kept apart": False}


def test_rclone_fails_at_keeping_writers_apart_and_nowhere_else(s3_rclone: S3Server) -> None:
    findings = verify_storage(s3_rclone.storage())
    assert [finding.what for finding in findings if finding.passed is False] == ["writers are kept apart"]
    assert "conditional PUT" in next(f.reason for f in findings if f.passed is False)


class _Forgetful(MemoryStorage):
    def save(self, key: str, parts: Sequence[Buffer]) -> None:
        super().save(key, [b"".join(parts)[:-1]])


class _Overwriting(MemoryStorage):
    def save(self, key: str, parts: Sequence[Buffer]) -> None:
        self.put_raw(key, b"".join(parts))


class _Hiding(MemoryStorage):
    def list(self, prefix: str) -> Iterator[StoredFile]:
        yield from [*super().list(prefix)][:-1]


class _Undying(MemoryStorage):
    def delete(self, key: str) -> None:
        """Keeps it."""


class _Whole(MemoryStorage):
    def load(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        return super().load(key)


class _Inventing(MemoryStorage):
    def load(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        return super().load(key, offset, length) if any(f.key == key for f in self.list("")) else b""


class _Unlocked(MemoryStorage):
    def retains_files(self) -> bool:  # type: ignore[override]
        return False


@pytest.mark.parametrize(
    ("storage", "what"),
    [
        (_Forgetful, "what was saved is loaded"),
        (_Overwriting, "a taken key is refused"),
        (_Overwriting, "writers are kept apart"),
        (_Hiding, "listings are complete"),
        (_Undying, "deleting is final and can be repeated"),
        (_Undying, "deleting removes the files of this verification"),
        (_Whole, "ranges are loaded"),
        (_Inventing, "what is not there is absent"),
        (_Unlocked, "retention holds"),
    ],
)
def test_each_broken_promise_is_named(storage: Callable[[], MemoryStorage], what: str) -> None:
    found = by_name(verify_storage(storage()))
    assert set(found) == ALL
    assert found[what] is False


def test_a_refused_write_is_a_finding_and_silence_an_error() -> None:
    storage = MemoryStorage()
    storage.fail("save", StorageError("denied by planned policy"), times=1000)
    found = verify_storage(storage)
    assert any(finding.passed is False and "planned policy" in finding.reason for finding in found)
    storage = MemoryStorage()
    storage.fail("load", UnreachableError("gone"))
    with pytest.raises(UnreachableError):
        verify_storage(storage)
    assert list(storage.list("")) == []
