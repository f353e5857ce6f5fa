"""The contract of `ports.Storage` as tests: the same for every kind of storage.

Subclass it in a test module and give it the storage:

    class TestMyStorage(StorageContract):
        @pytest.fixture
        def storage(self):
            yield MyStorage(...)

Invariant: it uses only what the port promises, and only keys it made.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, timedelta

import pytest

from drctl.errors import AbsentError, AlreadyExistsError, DrctlError, StorageError
from drctl.ports import Buffer, Storage

BAD_KEYS = ("", "/config", "data/", "data//a", "../config", "data/../config", "data/..", ".", ".hidden",
            "Config", "a b", "a\x00b", "a\nb", "a\\b", "ü", "data/a-tmp-1", "x" * 600)  # fmt: skip


class StorageContract:
    """All that a storage must do. `storage` must be empty, and fresh for every test."""

    shares_processes = True
    """False for a storage that lives in one process."""

    keeps_writers_apart = True
    """False for a server that is known to replace a file another writer made meanwhile."""

    @pytest.fixture
    def storage(self) -> Storage:
        raise NotImplementedError("override the fixture `storage`")

    # --- saving and loading ---

    def test_what_was_saved_is_loaded(self, storage: Storage) -> None:
        storage.save("config", [b"hello"])
        assert storage.load("config") == b"hello"

    def test_parts_are_stored_one_after_the_other(self, storage: Storage) -> None:
        parts: list[Buffer] = [b"one", bytearray(b"two"), memoryview(b"xthreex")[1:6], b"", memoryview(b"")]
        storage.save("data/ab/abcd", parts)
        assert storage.load("data/ab/abcd") == b"onetwothree"

    def test_an_empty_file_is_a_file(self, storage: Storage) -> None:
        storage.save("locks/00", [])
        assert storage.load("locks/00") == b""
        assert storage.stat("locks/00").size == 0
        assert [file.key for file in storage.list("locks/")] == ["locks/00"]

    def test_a_pack_of_many_parts_comes_back_whole(self, storage: Storage) -> None:
        block = os.urandom(1 << 20)
        parts = [memoryview(block)[n : n + 4000 + n % 7] for n in range(4096)]
        storage.save("data/01/0123", parts)
        assert storage.load("data/01/0123") == b"".join(parts)

    def test_ranges_are_loaded(self, storage: Storage) -> None:
        content = os.urandom(300_000)
        storage.save("data/ff/ffff", [content])
        for offset, length in ((0, 1), (0, 300_000), (1, 299_999), (65_536, 65_537), (299_999, 1), (17, 0)):
            assert storage.load("data/ff/ffff", offset, length) == content[offset : offset + length]
        assert storage.load("data/ff/ffff", 299_000) == content[299_000:]

    def test_a_range_past_the_end_is_shorter(self, storage: Storage) -> None:
        storage.save("index/aa", [b"0123456789"])
        assert storage.load("index/aa", 8, 100) == b"89"
        assert storage.load("index/aa", 10, 5) == b""
        assert storage.load("index/aa", 50) == b""

    def test_saving_under_a_taken_key_is_refused_and_changes_nothing(self, storage: Storage) -> None:
        storage.save("keys/aa", [b"first"])
        with pytest.raises(AlreadyExistsError):
            storage.save("keys/aa", [b"second"])
        assert storage.load("keys/aa") == b"first"
        assert [file.size for file in storage.list("keys/")] == [5]

    def test_a_deleted_key_can_be_saved_again(self, storage: Storage) -> None:
        storage.save("locks/aa", [b"first"])
        storage.delete("locks/aa")
        storage.save("locks/aa", [b"second"])
        assert storage.load("locks/aa") == b"second"

    # --- what is not there ---

    def test_what_is_not_there_is_absent(self, storage: Storage) -> None:
        storage.save("config", [b"x"])
        for act in (storage.load, storage.stat, lambda key: storage.load(key, 5, 0)):
            for key in ("snapshots/aa", "data/ab/abcd", "index/x"):
                with pytest.raises(AbsentError):
                    act(key)

    def test_deleting_twice_is_no_error(self, storage: Storage) -> None:
        storage.save("snapshots/aa", [b"x"])
        storage.delete("snapshots/aa")
        storage.delete("snapshots/aa")
        storage.delete("data/99/9999")
        with pytest.raises(AbsentError):
            storage.stat("snapshots/aa")
        assert list(storage.list("snapshots/")) == []

    # --- looking ---

    def test_stat_tells_size_and_receipt_time(self, storage: Storage) -> None:
        storage.save("index/aa", [b"12345"])
        storage.save("index/bb", [b"1234567"])
        first, second = storage.stat("index/aa"), storage.stat("index/bb")
        assert (first.key, first.size, second.size) == ("index/aa", 5, 7)
        assert first.modified.tzinfo is not None
        assert first.modified.utcoffset() == timedelta(0)
        assert first.modified <= second.modified + timedelta(seconds=2)
        assert first.modified.astimezone(UTC).year >= 2026

    def test_a_listing_names_each_file_once_with_its_size(self, storage: Storage) -> None:
        sizes = {f"data/{n % 5:02x}/{n:08x}": n for n in range(20)}
        sizes |= {"config": 3, "keys/aa": 4, "index/aa": 9}
        for key, size in sizes.items():
            storage.save(key, [b"x" * size])
        listed = list(storage.list(""))
        assert len(listed) == len(sizes)
        assert {file.key: file.size for file in listed} == sizes
        below = {key for key in sizes if key.startswith("data/")}
        assert {file.key for file in storage.list("data/")} == below
        assert {file.key for file in storage.list("data/03/")} == {k for k in below if k[5:7] == "03"}
        (file,) = storage.list("index/")
        # S3 tells whole seconds in one answer and fractions in the other
        assert abs(file.modified - storage.stat("index/aa").modified) < timedelta(seconds=1)

    def test_a_listing_of_a_prefix_without_files_is_empty(self, storage: Storage) -> None:
        storage.save("config", [b"x"])
        assert list(storage.list("snapshots/")) == []
        assert list(storage.list("data/00/")) == []

    def test_an_empty_storage_lists_nothing(self, storage: Storage) -> None:
        assert list(storage.list("")) == []

    def test_files_can_be_deleted_while_they_are_listed(self, storage: Storage) -> None:
        for n in range(8):
            storage.save(f"locks/{n:02x}", [b"x"])
        for file in storage.list("locks/"):
            storage.delete(file.key)
        assert list(storage.list("locks/")) == []

    # --- keys ---

    @pytest.mark.parametrize("key", BAD_KEYS)
    def test_a_bad_key_is_refused(self, storage: Storage, key: str) -> None:
        for act in (storage.load, storage.stat, storage.delete, lambda name: storage.save(name, [b"x"])):
            with pytest.raises(StorageError):
                act(key)

    def test_a_bad_prefix_is_refused(self, storage: Storage) -> None:
        for prefix in ("data", "/", "../", "data//", ".hidden/"):
            with pytest.raises(StorageError):
                list(storage.list(prefix))

    # --- several at once ---

    def test_of_many_writers_of_one_key_one_wins(self, storage: Storage) -> None:
        assert storage.refuses_overwrite() is self.keeps_writers_apart
        if not self.keeps_writers_apart:
            return

        def save(number: int) -> bool:
            try:
                storage.save("locks/cc", [b"%d" % number])
            except AlreadyExistsError:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(save, range(8)))
        assert sum(won) == 1
        assert storage.load("locks/cc") == b"%d" % won.index(True)

    def test_several_threads_may_use_it(self, storage: Storage) -> None:
        contents = {f"data/{n:02x}/{n:04x}": secrets.token_bytes(100_000 + n) for n in range(12)}
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda key: storage.save(key, [contents[key]]), contents))
            loaded = list(pool.map(storage.load, contents))
        assert loaded == list(contents.values())

    def test_the_answer_about_overwriting_is_proven_and_leaves_nothing(self, storage: Storage) -> None:
        assert storage.refuses_overwrite() in (True, False)
        assert list(storage.list("")) == []

    # --- life cycle ---

    def test_it_can_be_used_after_closing(self, storage: Storage) -> None:
        storage.save("config", [b"x"])
        storage.close()
        storage.close()
        assert storage.load("config") == b"x"

    def test_its_location_is_one_line(self, storage: Storage) -> None:
        assert storage.location
        assert storage.location.isprintable()

    def test_a_pickled_copy_works_in_this_process(self, storage: Storage) -> None:
        if not self.shares_processes:
            with pytest.raises(TypeError):
                pickle.dumps(storage)
            return
        storage.save("config", [b"x"])
        copy: Storage = pickle.loads(pickle.dumps(storage))  # noqa: S301 - our own bytes
        assert copy.load("config") == b"x"
        copy.close()

    @pytest.mark.parametrize("method", ["fork", "spawn"])
    def test_another_process_opens_its_own_connections(self, storage: Storage, method: str) -> None:
        if not self.shares_processes:
            return
        storage.save("config", [b"x" * 100_000])
        _in_process(method, _use, storage)
        assert storage.load("config") == b"x" * 100_000
        assert storage.load("data/cc/child") == b"from the child"

    def test_a_child_forked_while_threads_work_is_not_blocked(self, storage: Storage) -> None:
        if not self.shares_processes:
            return
        storage.save("config", [b"x" * 100_000])
        with ThreadPoolExecutor(4) as pool:
            work = [pool.submit(storage.load, "config") for _ in range(200)]
            _in_process("fork", _use, storage)
            assert all(len(job.result()) == 100_000 for job in work)


def _use(storage: Storage) -> None:
    assert len(storage.load("config")) == 100_000
    storage.save("data/cc/child", [b"from the child"])
    assert len(list(storage.list(""))) == 2
    storage.close()


def _in_process(method: str, act: Callable[[Storage], None], storage: Storage) -> None:
    context = multiprocessing.get_context(method)
    errors = context.SimpleQueue()
    child = context.Process(target=_report, args=(act, storage, errors))  # type: ignore[attr-defined]
    child.start()
    child.join(60)
    if child.exitcode is None:
        child.kill()
        pytest.fail(f"a {method}ed process hung with the storage")
    assert child.exitcode == 0, errors.get() if not errors.empty() else f"exit code {child.exitcode}"


def _report(
    act: Callable[[Storage], None], storage: Storage, errors: multiprocessing.SimpleQueue[str]
) -> None:
    try:
        act(storage)
    except (DrctlError, AssertionError) as exc:
        errors.put(f"{type(exc).__name__}: {exc}")
        raise SystemExit(1) from exc
