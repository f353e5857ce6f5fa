"""Locks: who conflicts with whom, what is stale, and when a lock is lost."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import orjson
import pytest

from drctl.clock import SystemClock
from drctl.domain.secret import Secret
from drctl.errors import CorruptError, DrctlError, LockedError, StorageError, UnreachableError
from drctl.repository.crypto import ScryptCost
from drctl.repository.lock import REFRESH_EVERY, STALE_AFTER, HeldLock, LockRecord, decode_lock
from drctl.repository.lock_owner import has_ended, mark_of_this_process
from drctl.repository.opening import create_repository
from drctl.repository.repo import FileKind, Repository
from drctl.storage.local import LocalOptions, LocalStorage
from drctl.testing.fake_clock import FakeClock
from drctl.testing.memory_storage import MemoryStorage

CHEAP = ScryptCost(16, 1, 1)
MINUTE = timedelta(minutes=1)


class World:
    """A repository in memory, whose storage has a clock of its own."""

    def __init__(self) -> None:
        self.storage_clock = FakeClock()
        self.clock = FakeClock()
        self.storage = MemoryStorage(self.storage_clock)
        self.repository = create_repository(self.storage, Secret("k"), self.clock, cost=CHEAP)

    def pass_time(self, by: timedelta) -> None:
        """Everywhere."""
        self.clock.advance(by)
        self.storage_clock.advance(by)

    def take(self, *, exclusive: bool) -> HeldLock:
        """Take and confirm; nothing refreshes it but the test."""
        lock = self.repository.take_lock(self.clock, exclusive=exclusive)
        lock.confirm(keep_fresh=False)
        return lock

    def foreign(
        self, *, exclusive: bool, hostname: str = "elsewhere", pid: int = 1, owner: str = ""
    ) -> bytes:
        """A lock that another process wrote; without `owner` one of restic."""
        fields = {
            "time": "2026-01-01T00:00:00Z",
            "exclusive": exclusive,
            "hostname": hostname,
            "username": "somebody",
            "pid": pid,
            **({"drctl_owner": owner} if owner else {}),
        }
        return self.repository.save_json(FileKind.LOCK, orjson.dumps(fields))

    def lock_files(self) -> set[str]:
        """Names of the lock files."""
        return {stored.id.hex() for stored in self.repository.files(FileKind.LOCK)}


@pytest.fixture
def world() -> World:
    return World()


def dead_pid() -> int:
    """A pid that was used and is free."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


# --- conflicts ------------------------------------------------------------------------------


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("wanted", [True, False])
def test_only_two_shared_locks_go_together(world: World, held: bool, wanted: bool) -> None:
    with world.take(exclusive=held):
        if held or wanted:
            with pytest.raises(LockedError, match=f"pid {os.getpid()}"):
                world.take(exclusive=wanted)
            assert len(world.lock_files()) == 1
        else:
            world.take(exclusive=wanted).release()
    world.take(exclusive=True).release()
    assert world.lock_files() == set()


def test_a_lock_that_appears_before_confirming_wins(world: World) -> None:
    lock = world.repository.take_lock(world.clock, exclusive=True)
    theirs = world.foreign(exclusive=False)
    with pytest.raises(LockedError, match="somebody@elsewhere"):
        lock.confirm(keep_fresh=False)
    assert world.lock_files() == {theirs.hex()}


def test_confirming_waits_until_whoever_locked_at_the_same_time_is_visible(world: World) -> None:
    lock = world.repository.take_lock(world.clock)
    assert world.clock.slept == []
    lock.confirm(keep_fresh=False)
    assert sum(world.clock.slept) == pytest.approx(0.2)
    lock.confirm(keep_fresh=False)
    assert len(world.clock.slept) == 1


def test_a_lock_removed_before_confirming_is_not_held(world: World) -> None:
    lock = world.repository.take_lock(world.clock)
    for name in world.lock_files():
        world.repository.remove(FileKind.LOCK, bytes.fromhex(name))
    with pytest.raises(LockedError, match="removed by somebody"):
        lock.confirm(keep_fresh=False)


def test_a_lock_is_given_back_when_confirming_fails(world: World) -> None:
    lock = world.repository.take_lock(world.clock)
    world.storage.fail("list", UnreachableError("no answer"))
    with pytest.raises(UnreachableError):
        lock.confirm(keep_fresh=False)
    assert world.lock_files() == set()


def test_a_lock_replaced_during_the_listing_is_still_seen(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = world.foreign(exclusive=True)
    load = world.storage.load

    def refresh_just_before_the_load(key: str, offset: int = 0, length: int | None = None) -> bytes:
        if key.endswith(old.hex()) and old.hex() in world.lock_files():
            world.foreign(exclusive=True)
            world.repository.remove(FileKind.LOCK, old)
        return load(key, offset, length)

    monkeypatch.setattr(world.storage, "load", refresh_just_before_the_load)
    with pytest.raises(LockedError):
        world.repository.take_lock(world.clock)


def test_locks_that_never_stop_changing_are_a_lock(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(key: str, *_: object) -> bytes:
        world.storage.delete(key)
        world.foreign(exclusive=False)
        return original(key)

    world.foreign(exclusive=False)
    original = world.storage.load
    monkeypatch.setattr(world.storage, "load", load)
    with pytest.raises(LockedError, match="keep changing"):
        world.repository.take_lock(world.clock)


# --- stale locks ----------------------------------------------------------------------------


def test_a_lock_of_a_process_that_has_ended_is_removed(world: World) -> None:
    theirs = world.foreign(exclusive=True, pid=dead_pid(), owner=mark_of_this_process())
    with world.take(exclusive=True):
        assert theirs.hex() not in world.lock_files()


def test_a_lock_whose_pid_another_process_has_by_now_is_removed(world: World) -> None:
    space, _, start = mark_of_this_process().rpartition(":")
    theirs = world.foreign(exclusive=True, pid=os.getpid(), owner=f"{space}:{int(start) - 1}")
    with world.take(exclusive=True):
        assert theirs.hex() not in world.lock_files()


@pytest.mark.parametrize("owner", ["", "other-boot:4026531836:99", ":", "x", "a:b:c:d"])
def test_a_container_of_the_same_name_keeps_its_lock_whatever_pids_live_here(
    world: World, owner: str
) -> None:
    theirs = world.foreign(exclusive=True, hostname=socket.gethostname(), pid=dead_pid(), owner=owner)
    with pytest.raises(LockedError):
        world.take(exclusive=True)
    assert world.lock_files() == {theirs.hex()}


def test_unlocking_by_hand_follows_restics_rule_for_restics_locks_alone(world: World) -> None:
    def stale(owner: str, hostname: str = socket.gethostname()) -> bool:
        now = world.clock.now()
        return LockRecord(bytes(32), now, True, hostname, "u", dead_pid(), now, owner).is_stale(now)

    assert stale("")
    assert not stale("", "elsewhere")
    assert not stale("other-boot:4026531836:99")
    assert stale(mark_of_this_process())


def test_a_killed_process_that_nobody_waited_for_has_ended() -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, mark_of_this_process().encode())
        os._exit(0)
    mark = os.read(reader, 1000).decode()
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert has_ended(mark, child)
    os.waitpid(child, 0)
    assert has_ended(mark, child)
    assert not has_ended(mark_of_this_process(), os.getpid())
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(
    ("hostname", "pid"), [("elsewhere", 1), (socket.gethostname(), os.getpid())], ids=["elsewhere", "here"]
)
def test_a_lock_that_may_be_alive_is_left_until_it_is_too_old(world: World, hostname: str, pid: int) -> None:
    theirs = world.foreign(exclusive=True, hostname=hostname, pid=pid)
    world.pass_time(STALE_AFTER - MINUTE)
    with pytest.raises(LockedError):
        world.take(exclusive=False)
    assert world.lock_files() == {theirs.hex()}
    world.pass_time(2 * MINUTE)
    with world.take(exclusive=False):
        assert theirs.hex() not in world.lock_files()


@pytest.mark.parametrize("days", [400, 2, -2, -400])
def test_a_host_with_a_wrong_clock_removes_nobodys_lock(world: World, days: int) -> None:
    theirs = world.foreign(exclusive=True)
    world.clock.set_calendar(world.clock.now() + timedelta(days=days))
    with pytest.raises(LockedError, match="somebody@elsewhere"):
        world.take(exclusive=True)
    assert world.lock_files() == {theirs.hex()}


def test_a_host_whose_clock_is_ahead_still_clears_a_stale_lock(world: World) -> None:
    world.foreign(exclusive=True)
    world.pass_time(STALE_AFTER + MINUTE)
    world.clock.set_calendar(world.clock.now() + timedelta(days=400))
    with world.take(exclusive=True):
        assert len(world.lock_files()) == 1


def test_what_the_lock_file_says_of_its_time_is_not_believed(world: World) -> None:
    world.clock.advance(timedelta(days=900))
    world.storage_clock.advance(timedelta(days=900))
    world.foreign(exclusive=True)  # written now, but dated long ago
    with pytest.raises(LockedError):
        world.take(exclusive=True)


# --- refreshing and losing ------------------------------------------------------------------


def test_a_refresh_replaces_the_file_by_a_newer_one(world: World) -> None:
    lock = world.take(exclusive=True)
    before = world.lock_files()
    world.pass_time(REFRESH_EVERY)
    lock.refresh()
    after = world.lock_files()
    assert len(after) == 1 and after != before
    lock.release()
    assert world.lock_files() == set()


def test_the_new_file_is_there_before_the_old_one_goes(world: World) -> None:
    lock = world.take(exclusive=True)
    world.storage.calls.clear()
    lock.refresh()
    operations = [call.operation for call in world.storage.calls]
    assert operations.index("save") < operations.index("delete")


def test_a_lock_that_somebody_removed_is_lost_and_not_written_again(world: World) -> None:
    lock = world.take(exclusive=False)
    for name in world.lock_files():
        world.repository.remove(FileKind.LOCK, bytes.fromhex(name))
    lock.check()
    lock.refresh()
    with pytest.raises(LockedError, match="removed by somebody"):
        lock.check()
    lock.refresh()
    assert world.lock_files() == set()


def test_a_failed_refresh_is_survived_while_the_lock_is_good_and_fatal_after(world: World) -> None:
    lock = world.take(exclusive=False)
    world.storage.fail("save", UnreachableError("no answer"), times=100, containing="locks/")
    for _ in range(4):
        world.pass_time(REFRESH_EVERY)
        lock.refresh()
        lock.check()
    world.pass_time(REFRESH_EVERY)
    with pytest.raises(LockedError, match="not refreshed"):
        lock.check()
    lock.refresh()
    with pytest.raises(LockedError):
        lock.check()


def test_a_refresh_that_succeeds_in_time_makes_good_what_failed(world: World) -> None:
    lock = world.take(exclusive=False)
    world.storage.fail("save", UnreachableError("no answer"), times=2, containing="locks/")
    for _ in range(12):
        world.pass_time(REFRESH_EVERY)
        lock.refresh()
        lock.check()
    assert len(world.lock_files()) == 1


def test_a_lock_is_lost_by_time_alone_before_others_may_call_it_stale(world: World) -> None:
    lock = world.take(exclusive=False)
    world.pass_time(STALE_AFTER - 5 * MINUTE)  # the refreshing thread hung, or the machine slept
    with pytest.raises(LockedError, match="not refreshed"):
        lock.check()


def test_a_refresh_that_comes_too_late_does_not_take_the_lock_again(world: World) -> None:
    lock = world.take(exclusive=False)
    world.pass_time(STALE_AFTER)
    before = world.lock_files()
    lock.refresh()
    assert world.lock_files() == before
    with pytest.raises(LockedError):
        lock.check()


def test_a_lock_does_not_outlive_a_slow_write_of_itself(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = world.take(exclusive=False)
    save = world.storage.save

    def slow(key: str, parts: list[bytes]) -> None:
        save(key, parts)
        world.pass_time(20 * MINUTE)  # stored at once, but the answer took long

    monkeypatch.setattr(world.storage, "save", slow)
    lock.refresh()
    monkeypatch.undo()
    world.pass_time(3 * MINUTE)
    with pytest.raises(LockedError):
        lock.check()


def test_an_old_file_that_could_not_be_removed_goes_at_the_next_chance(world: World) -> None:
    lock = world.take(exclusive=False)
    world.storage.fail("delete", UnreachableError("no answer"))
    lock.refresh()
    lock.check()
    assert len(world.lock_files()) == 2
    lock.release()
    assert world.lock_files() == set()


def test_releasing_when_the_storage_is_gone_is_no_error(world: World) -> None:
    lock = world.take(exclusive=False)
    world.storage.fail("delete", StorageError("denied"), times=5)
    lock.release()
    lock.release()


def test_the_thread_refreshes_until_the_lock_is_released(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drctl.repository.lock.REFRESH_EVERY", timedelta(seconds=0.01))
    refreshed = threading.Event()
    lock = world.repository.take_lock(world.clock, exclusive=True)
    first = world.lock_files()
    save = world.storage.save

    def watched(key: str, parts: list[bytes]) -> None:
        save(key, parts)
        refreshed.set()

    monkeypatch.setattr(world.storage, "save", watched)
    lock.confirm()
    assert refreshed.wait(20)
    lock.release()
    assert world.lock_files() == set() != first


# --- races ----------------------------------------------------------------------------------


def race(contenders: int, take: Callable[[int], HeldLock]) -> int:
    """Let all take at once and keep what they got; how many got one."""
    held: list[HeldLock] = []
    start = threading.Barrier(contenders)

    def contend(number: int) -> None:
        start.wait()
        try:
            held.append(take(number))
        except LockedError:
            return

    threads = [threading.Thread(target=contend, args=(number,)) for number in range(contenders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for lock in held:
        lock.release()
    return len(held)


@pytest.mark.parametrize("latency_s", [0.0, 0.05])
def test_of_threads_that_take_exclusive_locks_at_once_never_two_hold_one(latency_s: float) -> None:
    world = World()
    world.storage.latency_s = latency_s
    winners = []
    for _ in range(5):

        def take(_: int) -> HeldLock:
            lock = world.repository.take_lock(SystemClock(), exclusive=True)
            lock.confirm(keep_fresh=False)
            return lock

        winners.append(race(6, take))
        assert world.lock_files() == set()
    assert max(winners) <= 1


CONTENDER = """
import sys, time
from drctl.clock import SystemClock
from drctl.domain.secret import Secret
from drctl.errors import LockedError
from drctl.repository.opening import open_repository
from drctl.storage.local import LocalOptions, LocalStorage
repository = open_repository(LocalStorage(LocalOptions(sys.argv[1])), Secret("k"))
print("ready", flush=True)
sys.stdin.readline()
try:
    lock = repository.take_lock(SystemClock(), exclusive=True)
    lock.confirm()
    print("held", flush=True)
    sys.stdin.readline()  # until all have tried
    lock.check()
    lock.release()
except LockedError:
    print("locked", flush=True)
"""


def test_of_processes_that_take_exclusive_locks_at_once_never_two_hold_one(tmp_path: Path) -> None:
    storage = LocalStorage(LocalOptions(str(tmp_path / "repository")))
    repository = create_repository(storage, Secret("k"), SystemClock(), cost=CHEAP)
    for _ in range(2):
        contenders = [
            subprocess.Popen(
                [sys.executable, "-c", CONTENDER, storage.location],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(4)
        ]
        answers = []
        for word in ("ready", ""):
            for contender in contenders:
                assert contender.stdout and contender.stdin
                answers.append(contender.stdout.readline().strip())
                if word:
                    assert answers.pop() == word
            if word:
                for contender in contenders:
                    assert contender.stdin
                    contender.stdin.write("\n")
                    contender.stdin.flush()
        assert answers.count("held") <= 1
        assert answers.count("held") + answers.count("locked") == 4
        for contender in contenders:
            contender.communicate("\n")
            assert contender.returncode == 0
        assert list(repository.files(FileKind.LOCK)) == []


# --- reading lock files ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "json",
    [b"", b"5", b"[]", b"{}", b"\xff", b"[" * 5000, b'{"time":"x","exclusive":true,"pid":1}',
     b'{"time":"2026-01-01T00:00:00Z","exclusive":true}', b'{"time":"2026-01-01T00:00:00Z","pid":1}',
     b'{"time":"2026-01-01T00:00:00Z","exclusive":true,"pid":1e30}',
     b'{"time":"2026-01-01T00:00:00Z","exclusive":true,"pid":-1}',
     b'{"time":"2026-01-01T00:00:00Z","exclusive":true,"pid":1,"hostname":[]}',
     b'{"time":"2026-01-01T00:00:00Z","exclusive":true,"pid":1,"hostname":'
     + b"[" * 1010 + b"]" * 1010 + b"}"],
)  # fmt: skip
def test_a_malformed_lock_is_corrupt_and_nothing_else(json: bytes) -> None:
    with pytest.raises(CorruptError, match="locks/ab"):
        decode_lock(json, bytes(32), FakeClock().now(), "locks/ab")


@pytest.mark.parametrize("value", [b"true", b"1", b'"false"', b"null", b"[]"])
def test_a_lock_that_is_not_clearly_shared_counts_as_exclusive(value: bytes) -> None:
    json = b'{"time":"2026-01-01T00:00:00Z","exclusive":%s,"pid":99999999999}' % value
    record = decode_lock(json, bytes(32), FakeClock().now(), "locks/ab")
    assert record.exclusive


def test_a_damaged_lock_file_is_named_and_never_counts_as_no_lock(world: World) -> None:
    theirs = world.foreign(exclusive=True)
    world.storage.put_raw(FileKind.LOCK.key(theirs), b"")
    with pytest.raises(CorruptError, match=theirs.hex()):
        world.take(exclusive=False)


def test_an_impossible_pid_is_no_dead_process() -> None:
    record = LockRecord(
        bytes(32), FakeClock().now(), True, socket.gethostname(), "u", 2**64 - 1, FakeClock().now()
    )
    assert not record.is_stale(FakeClock().now())


def test_every_error_of_locking_is_one_a_user_may_see(world: World) -> None:
    for operation in ("list", "save", "load", "delete"):
        world.foreign(exclusive=False)
        world.storage.fail(operation, UnreachableError("no answer"))
        try:
            world.take(exclusive=False).release()
        except DrctlError:
            continue


def test_repositories_offer_their_locks(world: World) -> None:
    assert isinstance(world.repository, Repository)
    world.foreign(exclusive=False)
    (record,) = world.repository.lock_files(world.clock).read_all()
    assert record.describe() == "shared lock of somebody@elsewhere pid 1 since 2026-01-01T00:00:00Z"
