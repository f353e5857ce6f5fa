"""Retrying, limiting, throttling, refusing: over the storage in memory, with a clock of our own."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from drctl.clock import SystemClock
from drctl.errors import AlreadyExistsError, RefusedError, StorageError, UnreachableError
from drctl.storage.wrappers import Limited, ReadOnly, Retrying, Throttled
from drctl.testing.memory_storage import Call, MemoryStorage

AWAY = UnreachableError("planned")


class SteppedClock:
    """Time passes only by sleeping."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        return sum(self.slept)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
def memory() -> MemoryStorage:
    storage = MemoryStorage()
    storage.save("config", [b"content"])
    storage.calls.clear()
    return storage


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


def retrying(memory: MemoryStorage, clock: SteppedClock) -> Retrying:
    return Retrying(memory, clock, timedelta(minutes=2))


def test_what_may_pass_is_tried_until_it_passed(memory: MemoryStorage, clock: SteppedClock) -> None:
    memory.fail("load", AWAY, times=4)
    assert retrying(memory, clock).load("config") == b"content"
    assert len(memory.calls) == 5
    assert len(clock.slept) == 4


def test_pauses_grow_are_jittered_and_bounded(memory: MemoryStorage, clock: SteppedClock) -> None:
    runs = []
    for _ in range(20):
        clock.slept.clear()
        memory.fail("stat", AWAY, times=8)
        retrying(memory, clock).stat("config")
        runs.append(list(clock.slept))
    assert len({tuple(run) for run in runs}) == 20
    assert max(max(run) for run in runs) <= 30
    means = [sum(run[n] for run in runs) / 20 for n in range(8)]
    assert means[0] < means[3] < means[6]


def test_it_gives_up_in_time_with_the_storages_own_error(memory: MemoryStorage, clock: SteppedClock) -> None:
    memory.fail("delete", AWAY, times=10**6)
    with pytest.raises(UnreachableError, match="planned"):
        retrying(memory, clock).delete("config")
    assert 60 < clock.monotonic() <= 120


@pytest.mark.parametrize(
    "error", [StorageError("full"), RefusedError("host key"), AlreadyExistsError("there")]
)
def test_what_is_final_is_not_tried_again(
    memory: MemoryStorage, clock: SteppedClock, error: StorageError
) -> None:
    memory.fail("save", error)
    with pytest.raises(type(error)):
        retrying(memory, clock).save("locks/aa", [b"x"])
    assert memory.calls == [Call("save", "locks/aa")]
    assert clock.slept == []


def test_a_save_that_took_effect_unheard_is_a_success(memory: MemoryStorage, clock: SteppedClock) -> None:
    memory.fail("save", AWAY, applied=True)
    retrying(memory, clock).save("data/aa/aa", [b"ab", memoryview(b"cd")])
    assert memory.load("data/aa/aa") == b"abcd"


def test_so_it_is_when_the_comparison_itself_has_to_be_retried(
    memory: MemoryStorage, clock: SteppedClock
) -> None:
    memory.fail("save", AWAY, applied=True)
    memory.fail("stat", AWAY)
    memory.fail("load", AWAY)
    retrying(memory, clock).save("data/aa/aa", [b"abcd"])
    assert memory.load("data/aa/aa") == b"abcd"


@pytest.mark.parametrize("theirs", [b"other", b"others", b""])
def test_an_unheard_save_over_another_writers_file_is_an_error(
    memory: MemoryStorage, clock: SteppedClock, theirs: bytes
) -> None:
    memory.put_raw("locks/aa", theirs)
    memory.fail("save", AWAY)
    with pytest.raises(AlreadyExistsError):
        retrying(memory, clock).save("locks/aa", [b"ours!"])
    assert memory.load("locks/aa") == theirs


def test_a_taken_key_without_doubt_is_an_error_even_with_the_same_content(
    memory: MemoryStorage, clock: SteppedClock
) -> None:
    with pytest.raises(AlreadyExistsError):
        retrying(memory, clock).save("config", [b"content"])


def test_a_listing_that_fails_midway_starts_over_and_names_each_file_once(
    memory: MemoryStorage, clock: SteppedClock
) -> None:
    for n in range(5):
        memory.save(f"index/{n}", [b""])
    memory.fail("list", AWAY, times=2, applied=True)
    assert [file.key for file in retrying(memory, clock).list("index/")] == [f"index/{n}" for n in range(5)]


def test_no_more_calls_than_allowed_are_under_way(memory: MemoryStorage) -> None:
    under_way, most = 0, 0
    lock = threading.Lock()
    load = memory.load

    def counting(key: str, offset: int = 0, length: int | None = None) -> bytes:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        threading.Event().wait(0.01)
        with lock:
            under_way -= 1
        return load(key, offset, length)

    memory.load = counting  # type: ignore[method-assign]
    limited = Limited(memory, 3)
    with ThreadPoolExecutor(12) as pool:
        assert set(pool.map(lambda _: limited.load("config"), range(40))) == {b"content"}
    assert most == 3


def test_files_can_be_loaded_while_listing_with_one_connection(memory: MemoryStorage) -> None:
    limited = Limited(memory, 1)
    assert [limited.load(file.key) for file in limited.list("")] == [b"content"]


def test_a_failed_call_gives_its_place_back(memory: MemoryStorage) -> None:
    limited = Limited(memory, 1)
    memory.fail("list", AWAY, applied=True)
    memory.fail("load", AWAY)
    with pytest.raises(UnreachableError):
        list(limited.list(""))
    with pytest.raises(UnreachableError):
        limited.load("config")
    assert limited.load("config") == b"content"


def test_the_mean_rate_stays_under_the_limit(memory: MemoryStorage, clock: SteppedClock) -> None:
    throttled = Throttled(memory, clock, upload_bytes_s=1000, download_bytes_s=500)
    for n in range(10):
        throttled.save(f"index/{n}", [b"x" * 600, b"y" * 400])
    assert clock.monotonic() == pytest.approx(9)  # the tenth has left, and is still being paid for
    for n in range(10):
        assert len(throttled.load(f"index/{n}")) == 1000
    assert clock.monotonic() == pytest.approx(9 + 18)


def test_no_limit_is_no_pause(memory: MemoryStorage, clock: SteppedClock) -> None:
    throttled = Throttled(memory, clock, None, None)
    throttled.save("index/aa", [b"x" * 10**6])
    throttled.load("index/aa")
    assert clock.slept == []


def test_read_only_passes_reads_and_no_write(memory: MemoryStorage) -> None:
    shut = ReadOnly(memory)
    assert shut.load("config") == b"content"
    assert shut.stat("config").size == 7
    assert [file.key for file in shut.list("")] == ["config"]
    memory.calls.clear()
    for act in (
        lambda: shut.save("a", [b""]),
        lambda: shut.delete("config"),
        shut.refuses_overwrite,
        shut.retains_files,
    ):
        with pytest.raises(RefusedError):
            act()
    assert memory.calls == []


def test_a_rate_holds_for_a_process_and_all_it_forks() -> None:
    throttled = Throttled(MemoryStorage(), SystemClock(), upload_bytes_s=200_000, download_bytes_s=None)
    clock = SystemClock()
    began = clock.monotonic()
    children = []
    for child in range(2):
        pid = os.fork()
        if pid == 0:
            for number in range(2):
                throttled.save(f"data/{child}{number}", [bytes(50_000)])
            os._exit(0)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0]
    # four transfers of a quarter of a second each; the last may start when the others are paid for
    assert clock.monotonic() - began >= 0.74
