"""What an S3 server may do to us: nothing of it loses or doubles a file (safety lines 5, 6, 13, 14, 47)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from drctl.clock import SystemClock
from drctl.errors import (
    AbsentError,
    AlreadyExistsError,
    RefusedError,
    StorageError,
    UnreachableError,
    UsageError,
)
from drctl.ports import Storage
from drctl.storage.s3 import S3Options, S3Storage
from drctl.storage.wrappers import ReadOnly, Retrying
from tests.servers.s3 import S3Server
from tests.servers.s3_faults import Fault, FaultyS3Server, faulty_s3_server
from tests.servers.tcp_proxy import Fault as TcpFault
from tests.servers.tcp_proxy import tcp_proxy

MAY_PASS = (
    Fault.SLOW_DOWN,
    Fault.INTERNAL,
    Fault.APPLIED_THEN_INTERNAL,
    Fault.DROPPED,
    Fault.APPLIED_THEN_DROPPED,
    Fault.SLOW,
)


@pytest.fixture(scope="module")
def server() -> Iterator[FaultyS3Server]:
    with faulty_s3_server() as started:
        yield started


@pytest.fixture
def storage(server: FaultyS3Server) -> Iterator[S3Storage]:
    storage = server.storage(timeout_s=1)
    storage.save("config", [b"x" * 1000])
    yield storage
    assert server.faults.pending == 0, "a planned fault did not happen, so nothing was proven"


def retrying(storage: Storage) -> Retrying:
    return Retrying(storage, SystemClock(), timedelta(seconds=20))


OPERATIONS: dict[str, tuple[str, Callable[[Storage], object]]] = {
    "save": ("PUT", lambda storage: storage.save("data/aa/aaaa", [b"y" * 1000])),
    "load": ("GET", lambda storage: storage.load("config")),
    "stat": ("HEAD", lambda storage: storage.stat("config")),
    "list": ("GET", lambda storage: list(storage.list(""))),
    "delete": ("DELETE", lambda storage: storage.delete("config")),
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("fault", MAY_PASS, ids=lambda fault: fault.name)
def test_what_may_pass_is_told_apart_and_tried_again(
    server: FaultyS3Server, storage: S3Storage, fault: Fault, operation: str
) -> None:
    method, act = OPERATIONS[operation]
    server.faults.plan(fault, method)
    with pytest.raises(UnreachableError):
        act(storage)
    server.faults.plan(fault, method)
    if operation == "save":
        storage.delete("data/aa/aaaa")
    act(retrying(storage))
    listed = {file.key: file.size for file in storage.list("")}
    expected = {"config": 1000} if operation != "delete" else {}
    assert listed == expected | ({"data/aa/aaaa": 1000} if operation == "save" else {})


def test_a_save_that_took_effect_unheard_is_a_success_with_one_effect(
    server: FaultyS3Server, storage: S3Storage
) -> None:
    server.faults.requests.clear()
    server.faults.plan(Fault.APPLIED_THEN_DROPPED, "PUT")
    retrying(storage).save("index/aa", [b"abc", b"def"])
    assert storage.load("index/aa") == b"abcdef"
    puts = [url for method, url in server.faults.requests if method == "PUT"]
    assert len(puts) == 2  # the second was refused: one effect


def test_an_unheard_save_over_another_writers_file_is_an_error(
    server: FaultyS3Server, storage: S3Storage
) -> None:
    storage.save("locks/aa", [b"their lock"])
    server.faults.plan(Fault.INTERNAL, "PUT")
    with pytest.raises(AlreadyExistsError):
        retrying(storage).save("locks/aa", [b"our lock!!"])
    assert storage.load("locks/aa") == b"their lock"


@pytest.mark.parametrize("length", [None, 500])
def test_a_body_that_was_cut_short_is_never_a_short_result(
    server: FaultyS3Server, storage: S3Storage, length: int | None
) -> None:
    server.faults.plan(Fault.TRUNCATED, "GET")
    with pytest.raises(UnreachableError):
        storage.load("config", 0, length)
    server.faults.plan(Fault.TRUNCATED, "GET")
    assert retrying(storage).load("config", 0, length) == b"x" * (length or 1000)


@pytest.mark.parametrize("fault", [Fault.TRUNCATED, Fault.GARBLED], ids=lambda fault: fault.name)
def test_a_listing_that_was_cut_short_is_never_a_short_listing(
    server: FaultyS3Server, storage: S3Storage, fault: Fault
) -> None:
    for n in range(5):
        storage.save(f"snapshots/{n:02x}", [b"x"])
    server.faults.plan(fault, "GET", containing="list-type")
    with pytest.raises(UnreachableError):
        list(storage.list("snapshots/"))
    server.faults.plan(fault, "GET", containing="list-type")
    assert len(list(retrying(storage).list("snapshots/"))) == 5


def test_the_second_page_of_a_listing_failing_fails_the_listing(server: FaultyS3Server) -> None:
    bucket = server.bucket_of_its_own()
    client = server.client()
    for n in range(1003):
        client.put_object(Bucket=bucket, Key=f"data/{n % 256:02x}/{n:08x}", Body=b"")
    storage = server.storage(bucket)
    assert len(list(storage.list("data/"))) == 1003
    server.faults.plan(Fault.SLOW_DOWN, "GET", containing="continuation-token")
    with pytest.raises(UnreachableError):
        list(storage.list("data/"))
    server.faults.plan(Fault.SLOW_DOWN, "GET", containing="continuation-token")
    assert len({file.key for file in retrying(storage).list("data/")}) == 1003


@pytest.mark.parametrize("fault", [Fault.DENIED, Fault.FULL], ids=lambda fault: fault.name)
def test_a_refusal_is_final_and_says_what_to_do(
    server: FaultyS3Server, storage: S3Storage, fault: Fault
) -> None:
    server.faults.plan(fault, "PUT")
    with pytest.raises(StorageError) as caught:
        retrying(storage).save("data/aa/aaaa", [b"x"])
    assert caught.value.hint
    assert not isinstance(caught.value, AbsentError | AlreadyExistsError)
    assert [file.key for file in storage.list("")] == ["config"]


def test_a_failed_part_leaves_no_file_and_no_upload(server: FaultyS3Server) -> None:
    bucket = server.bucket_of_its_own()
    storage = server.storage(bucket, multipart_mib=6, part_mib=5)
    content = os.urandom(12 << 20)
    server.faults.plan(Fault.INTERNAL, "PUT", containing="partNumber=2")
    with pytest.raises(UnreachableError):
        storage.save("data/aa/aaaa", [content])
    assert list(storage.list("")) == []
    assert "Uploads" not in server.client().list_multipart_uploads(Bucket=bucket)
    storage.save("data/aa/aaaa", [content[: 7 << 20], content[7 << 20 :]])
    assert storage.load("data/aa/aaaa") == content
    with pytest.raises(AlreadyExistsError):
        storage.save("data/aa/aaaa", [content])


def test_nobody_listening_is_unreachable_and_given_up_in_time() -> None:
    options = S3Options(bucket="b", endpoint="http://127.0.0.1:9", timeout_s=1)
    clock = SystemClock()
    storage = S3Storage(options, clock, S3Server("").credentials)
    start = clock.monotonic()
    with pytest.raises(UnreachableError) as caught:
        Retrying(storage, clock, timedelta(seconds=2)).load("config")
    assert clock.monotonic() - start < 6
    assert "127.0.0.1:9" in str(caught.value)


def test_a_byte_flipped_on_the_way_up_is_refused_by_the_checksum(s3_rclone: S3Server) -> None:
    bucket = s3_rclone.bucket_of_its_own()
    with tcp_proxy(int(s3_rclone.endpoint.rpartition(":")[2])) as proxy:
        storage = S3Server(f"http://127.0.0.1:{proxy.port}").storage(bucket)
        storage.save("config", [b"x"])
        content = os.urandom(3 << 20)
        proxy.plan(TcpFault.FLIP, after_bytes=2 << 20)
        with pytest.raises(UnreachableError) as caught:
            storage.save("data/aa/aaaa", [content])
        assert proxy.happened
        assert "BadDigest" in str(caught.value)
        assert [file.key for file in storage.list("")] == ["config"]
        proxy.plan(TcpFault.FLIP, after_bytes=2 << 20)
        retrying(storage).save("data/aa/aaaa", [content])
        assert storage.load("data/aa/aaaa") == content


@pytest.mark.parametrize("fault", [TcpFault.RESET, TcpFault.CLOSE, TcpFault.BLACK_HOLE], ids=lambda f: f.name)
def test_a_connection_lost_in_mid_upload_leaves_no_file(s3_rclone: S3Server, fault: TcpFault) -> None:
    bucket = s3_rclone.bucket_of_its_own()
    with tcp_proxy(int(s3_rclone.endpoint.rpartition(":")[2])) as proxy:
        storage = S3Server(f"http://127.0.0.1:{proxy.port}").storage(bucket, timeout_s=2)
        storage.save("config", [b"x"])
        proxy.plan(fault, after_bytes=1 << 20)
        with pytest.raises(UnreachableError):
            storage.save("data/aa/aaaa", [os.urandom(3 << 20)])
        assert proxy.happened
        proxy.heal()
        assert [file.key for file in storage.list("")] == ["config"]


def test_rclone_is_found_not_to_keep_writers_apart(s3_rclone: S3Server, s3_moto: S3Server) -> None:
    assert s3_rclone.storage().refuses_overwrite() is False
    assert s3_moto.storage().refuses_overwrite() is True


def test_ceph_keeps_writers_apart_only_without_object_lock(s3_ceph: S3Server) -> None:
    assert s3_ceph.storage().refuses_overwrite() is True
    locked = s3_ceph.bucket_of_its_own(ObjectLockEnabledForBucket=True)
    assert s3_ceph.storage(locked).refuses_overwrite() is False


def test_the_proof_leaves_one_hidden_object_and_asks_it_again(s3_moto: S3Server) -> None:
    bucket = s3_moto.bucket_of_its_own()
    storage = s3_moto.storage(bucket)
    for _ in range(3):
        assert storage.refuses_overwrite()
    objects = s3_moto.client().list_objects_v2(Bucket=bucket)["Contents"]
    assert [found["Key"] for found in objects] == [".drctl-probe"]
    assert list(storage.list("")) == []


def test_object_lock_is_set_on_what_is_kept_and_never_on_locks(s3_ceph: S3Server) -> None:
    bucket = s3_ceph.bucket_of_its_own(ObjectLockEnabledForBucket=True)
    storage = s3_ceph.storage(bucket, object_lock_days=3, object_lock_mode="compliance")
    client = s3_ceph.client()
    for key in ("config", "keys/aa", "data/aa/aaaa", "index/aa", "snapshots/aa"):
        storage.save(key, [b"x"])
        retention = client.get_object_retention(Bucket=bucket, Key=key)["Retention"]
        assert retention["Mode"] == "COMPLIANCE"
        left = retention["RetainUntilDate"] - SystemClock().now()
        assert timedelta(days=2, hours=23) < left <= timedelta(days=3)
    storage.save("locks/aa", [b"x"])
    with pytest.raises(client.exceptions.ClientError, match="ObjectLockConfiguration"):
        client.get_object_retention(Bucket=bucket, Key="locks/aa")


def test_retention_is_proven_by_trying_to_remove(s3_ceph: S3Server) -> None:
    bucket = s3_ceph.bucket_of_its_own(ObjectLockEnabledForBucket=True)
    compliance = s3_ceph.storage(bucket, object_lock_days=1, object_lock_mode="compliance")
    governance = s3_ceph.storage(bucket, object_lock_days=1, object_lock_mode="governance")
    assert compliance.retains_files() is True
    assert governance.retains_files() is False  # the bucket's owner may bypass it
    assert s3_ceph.storage(bucket).retains_files() is None
    assert "Versions" not in s3_ceph.client().list_object_versions(Bucket=bucket, Prefix="drctl-probe/")


def test_retention_on_a_bucket_without_object_lock_is_refused(s3_ceph: S3Server) -> None:
    storage = s3_ceph.storage(object_lock_days=1)
    with pytest.raises(StorageError):
        storage.save("data/aa/aaaa", [b"x"])
    assert list(storage.list("")) == []


def test_wrong_credentials_are_a_clear_refusal(s3_ceph: S3Server) -> None:
    bucket = s3_ceph.bucket_of_its_own()
    wrong = S3Server(s3_ceph.endpoint, "AK", "canary-secret").storage(bucket)
    with pytest.raises(StorageError) as caught:
        wrong.load("config")
    assert "secret key" in (caught.value.hint or "")
    assert "canary-secret" not in f"{caught.value!r} {caught.value} {wrong.location} {vars(wrong)}"


def test_a_bucket_that_is_not_there_is_never_an_empty_one(s3_ceph: S3Server, s3_rclone: S3Server) -> None:
    for server in (s3_ceph, s3_rclone):
        storage = server.storage("nothing-here")
        for act in (lambda s: list(s.list("")), lambda s: s.save("config", [b"x"])):
            with pytest.raises(StorageError) as caught:
                act(storage)
            assert not isinstance(caught.value, AbsentError)


def test_the_storage_class_is_for_data_only(s3_moto: S3Server) -> None:
    bucket = s3_moto.bucket_of_its_own()
    storage = s3_moto.storage(bucket, storage_class="STANDARD_IA")
    for key in ("config", "data/aa/aaaa", "index/aa"):
        storage.save(key, [b"x"])
    objects = s3_moto.client().list_objects_v2(Bucket=bucket)["Contents"]
    classes = {found["Key"]: found["StorageClass"] for found in objects}
    assert classes["data/aa/aaaa"] == "STANDARD_IA"
    assert classes["config"] == classes["index/aa"] == "STANDARD"


def test_a_class_that_must_thaw_first_is_refused() -> None:
    with pytest.raises(UsageError):
        S3Storage(S3Options(bucket="b", storage_class="DEEP_ARCHIVE"), SystemClock())


def test_two_prefixes_of_a_bucket_are_two_storages(s3_moto: S3Server) -> None:
    bucket = s3_moto.bucket_of_its_own()
    first, second = s3_moto.storage(bucket, prefix="a"), s3_moto.storage(bucket, prefix="/ab/")
    first.save("config", [b"1"])
    second.save("config", [b"22"])
    assert [file.size for file in first.list("")] == [1]
    assert [file.size for file in second.list("")] == [2]


def test_read_only_never_sends_a_write(server: FaultyS3Server, storage: S3Storage) -> None:
    server.faults.requests.clear()
    shut = ReadOnly(storage)
    for act in (
        lambda: shut.save("data/aa/aa", [b"x"]),
        lambda: shut.delete("config"),
        shut.refuses_overwrite,
        shut.retains_files,
    ):
        with pytest.raises(RefusedError):
            act()
    assert shut.load("config") == b"x" * 1000
    assert {method for method, _ in server.faults.requests} == {"GET"}
