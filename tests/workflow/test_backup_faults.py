"""Backups that meet trouble: in the source, in the storage, in themselves."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from drctl.errors import (
    DrctlError,
    ExitCode,
    InterruptedRunError,
    LockedError,
    SourceError,
    StorageError,
    UnreachableError,
)
from drctl.ports import Entry
from drctl.repository.archive_job import Trouble
from drctl.repository.repo import FileKind
from drctl.sources.files import FilesOptions, FilesSource
from drctl.sources.local_directory import LocalDirectory
from tests.compare import differences
from tests.workflow.backups import Place, write_tree
from tests.workflow.faulty_storage import FaultyStorage


class _Meddling(FilesSource):
    """Lets something happen to the source between its listing and its reading."""

    def __init__(self, data: Path, meddle: str) -> None:
        super().__init__(FilesOptions((str(data),)))
        self._data = data
        self._meddle = meddle

    def open_directory(self, path: bytes) -> LocalDirectory:
        directory = super().open_directory(path)
        listed = list(directory.entries)
        victim = self._data / "victim"
        if os.fsdecode(path) == str(self._data):
            match self._meddle:
                case "vanish":
                    victim.unlink(missing_ok=True)
                case "symlink":
                    victim.unlink(missing_ok=True)
                    victim.symlink_to("/etc/shadow")
                case "fifo":
                    victim.unlink(missing_ok=True)
                    os.mkfifo(victim)
        assert listed
        return directory


@pytest.mark.parametrize(
    ("meddle", "trouble"),
    [("vanish", Trouble.VANISHED), ("symlink", Trouble.SWAPPED), ("fifo", Trouble.SWAPPED)],
)
@pytest.mark.parametrize("size", [100, 9_000_000])
def test_a_file_that_is_gone_or_another_when_it_is_opened_is_listed(
    place: Place, tmp_path: Path, meddle: str, trouble: Trouble, size: int
) -> None:
    write_tree(place.data)
    (place.data / "victim").write_bytes(bytes(size))
    report = place.back_up(_Meddling(place.data, meddle))
    assert [(problem.path, problem.trouble) for problem in report.problems] == [
        (os.fsencode(place.data / "victim"), trouble)
    ]
    assert report.exit_code is ExitCode.INCOMPLETE
    assert report.snapshot.is_complete is (trouble is Trouble.VANISHED)
    assert "victim" not in os.listdir(place.restored(tmp_path / "out"))


def test_unreadable_files_and_directories_are_listed_and_the_rest_is_stored(
    place: Place, tmp_path: Path
) -> None:
    write_tree(place.data)
    (place.data / "closed").mkdir()
    (place.data / "secret").write_bytes(b"x")
    script = (
        "from pathlib import Path; from tests.workflow.backups import Place; import sys;"
        f"place = Place(Path({str(place.repository)!r}), Path({str(place.data)!r}));"
        "report = place.back_up();"
        "print(sorted((p.path.decode().rsplit('/')[-1], p.trouble.name) for p in report.problems),"
        " report.snapshot.is_complete, report.counts.files_new); sys.exit(report.exit_code)"
    )
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_mode & 0o777 == 0o700:
            path.chmod(0o711)  # pytest's own directories
    subprocess.run(["chown", "-R", "nobody", str(place.repository)], check=True)
    (place.data / "closed").chmod(0o700)
    (place.data / "secret").chmod(0o600)
    done = subprocess.run(
        ["setpriv", "--reuid=nobody", "--clear-groups", sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PATH": os.environ["PATH"], "HOME": "/"},
    )
    assert done.returncode == ExitCode.INCOMPLETE, done.stderr
    assert done.stdout.strip() == "[('closed', 'UNREADABLE'), ('secret', 'UNREADABLE')] False 40"


class _Growing(FilesSource):
    """A source in which one file changes whenever it has been read."""

    def open_directory(self, path: bytes) -> LocalDirectory:
        return _GrowingDirectory(super().open_directory(path))  # type: ignore[return-value]


class _GrowingDirectory:
    def __init__(self, directory: LocalDirectory) -> None:
        self._directory = directory

    def __getattr__(self, name: str) -> object:
        return getattr(self._directory, name)

    def __enter__(self) -> _GrowingDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self._directory.close()

    def open(self, entry: Entry) -> object:
        reader = self._directory.open(entry)
        if entry.name == b"victim":
            os.utime(b"/proc/self/fd/%d/victim" % self._directory._descriptor, ns=(time.time_ns(),) * 2)
        return reader


@pytest.mark.parametrize("size", [100, 9_000_000])
def test_a_file_that_changes_while_it_is_read_is_stored_and_listed(
    place: Place, tmp_path: Path, size: int
) -> None:
    (place.data / "victim").write_bytes(bytes(size))
    (place.data / "calm").write_bytes(b"calm")
    report = place.back_up(_Growing(FilesOptions((str(place.data),))))
    assert [(problem.path, problem.trouble) for problem in report.problems] == [
        (os.fsencode(place.data / "victim"), Trouble.CHANGED)
    ]
    assert report.exit_code is ExitCode.INCOMPLETE
    assert (place.restored(tmp_path / "out") / "victim").stat().st_size == size


# --- storage


def test_packs_are_stored_before_the_index_and_the_snapshot_last(place: Place) -> None:
    write_tree(place.data)
    (place.data / "large").write_bytes(random.Random(1).randbytes(30_000_000))
    storage = FaultyStorage(place.storage())
    place.back_up(storage=storage)
    log = [folder for folder in storage.log if folder != "locks"]
    assert log[-2:] == ["index", "snapshots"]
    assert set(log[:-2]) == {"data"}


def _full() -> None:
    raise StorageError("no space left on device")


def _unreachable() -> None:
    raise UnreachableError("503 slow down")


@pytest.mark.parametrize("fault", [_full, _unreachable])
def test_a_storage_that_fails_at_any_save_leaves_the_older_snapshots_and_a_rerun_continues(
    place: Place, tmp_path: Path, fault: object
) -> None:
    write_tree(place.data)
    place.back_up()
    write_tree(place.data, seed=1)
    (place.data / "large").write_bytes(random.Random(1).randbytes(40_000_000))
    counted = FaultyStorage(place.storage())
    older = tmp_path / "older"
    place.restored(older)
    failures = 0
    for at in range(1, 40):
        storage = FaultyStorage(place.storage(), at, fault)  # type: ignore[arg-type]
        try:
            place.back_up(storage=storage)
        except DrctlError as error:
            failures += 1
            assert not isinstance(error, SourceError), error
            assert len(place.open().snapshots()) == 1
            continue
        break
    assert failures > 4, "the faults were not met: this test proves nothing"
    assert counted.saves == 0
    place.restic().run("check", "--read-data")
    assert differences(place.data, place.restored(tmp_path / "out"), top=True) == []


def test_a_storage_that_fails_for_good_never_makes_a_run_hang(place: Place) -> None:
    for number in range(4):
        (place.data / f"large {number}").write_bytes(os.urandom(60_000_000))
    finished: list[BaseException] = []

    def run() -> None:
        try:
            place.back_up(storage=FaultyStorage(place.storage(), 2, _full))
        except DrctlError as error:
            finished.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(120)
    assert [type(error) for error in finished] == [StorageError]


def test_what_an_aborted_run_indexed_is_not_stored_again(place: Place) -> None:
    (place.data / "large").write_bytes(random.Random(1).randbytes(40_000_000))

    def fail_snapshots() -> None:
        raise StorageError("denied")

    probe = FaultyStorage(place.storage())
    place.back_up(storage=probe)
    last = probe.saves
    for kind in ("data", "index", "snapshots"):
        for path in list((place.repository / kind).rglob("*")):
            if path.is_file():
                path.unlink()
    with pytest.raises(StorageError):
        place.back_up(storage=FaultyStorage(place.storage(), last, fail_snapshots))
    report = place.back_up()
    assert report.counts.data_blobs == 0


# --- the run itself


def _wait_for(condition: object, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)


def _children() -> set[int]:
    """Processes that this one has started (servers of other tests may be among them)."""
    return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))


def test_a_worker_that_is_killed_fails_the_run_and_nothing_dangles(place: Place, tmp_path: Path) -> None:
    write_tree(place.data, folders=300)
    bystanders = _children()
    killed: list[int] = []

    def kill_a_worker() -> None:
        for worker in _children() - bystanders:
            if not killed:
                os.kill(worker, signal.SIGKILL)
                killed.append(worker)

    with pytest.raises(SourceError, match="worker process"):
        place.back_up(stop=kill_a_worker)
    assert killed
    assert place.open().snapshots() == []
    assert os.listdir(place.repository / "locks") == []
    place.back_up()
    place.restic().run("check", "--read-data")
    assert differences(place.data, place.restored(tmp_path / "out"), top=True) == []


@pytest.mark.parametrize("large", [0, 200_000_000])
def test_an_interrupt_ends_the_run_without_a_snapshot_a_lock_or_a_process(place: Place, large: int) -> None:
    write_tree(place.data, folders=100)
    (place.data / "large").write_bytes(os.urandom(large))
    bystanders = _children()

    def stop() -> None:
        raise InterruptedRunError("stopped")

    with pytest.raises(InterruptedRunError):
        place.back_up(stop=stop)
    assert place.open().snapshots() == []
    assert os.listdir(place.repository / "locks") == []
    assert _children() <= bystanders
    assert [
        thread.name for thread in threading.enumerate() if thread.name.startswith(("upload", "chunk"))
    ] == []


def test_a_run_whose_lock_was_removed_writes_no_snapshot(place: Place) -> None:
    write_tree(place.data)
    repository = place.open()
    taken: list[object] = []

    def steal() -> None:
        if not taken:
            taken.append(True)
            for lock in repository.files(FileKind.LOCK):
                repository.remove(FileKind.LOCK, lock.id)
        for thread in threading.enumerate():
            if thread.name == "lock-refresh":
                # what the thread does every five minutes
                refresh = thread._target.__self__.refresh  # type: ignore[attr-defined]
                refresh()

    with pytest.raises(LockedError, match="lost"):
        place.back_up(stop=steal)
    assert place.open().snapshots() == []


def test_an_exclusive_lock_keeps_a_backup_out(place: Place) -> None:
    from drctl.clock import SystemClock

    write_tree(place.data)
    with place.open().take_lock(SystemClock(), exclusive=True), pytest.raises(LockedError):
        place.back_up()
    place.back_up()


def test_kill_9_at_random_moments_leaves_a_repository_that_the_next_run_completes(
    place: Place, tmp_path: Path
) -> None:
    write_tree(place.data, folders=200)
    (place.data / "large").write_bytes(random.Random(1).randbytes(60_000_000))
    seed = random.SystemRandom().randrange(10**6)
    moments = random.Random(seed)
    rehearsal = Place(tmp_path / "rehearsal", place.data)
    rehearsal.create()
    began = time.monotonic()
    _start_backup(rehearsal).wait()
    whole_s = time.monotonic() - began
    killed = 0
    for _ in range(6):
        run = _start_backup(place)
        try:
            run.wait(timeout=moments.uniform(0.2, 0.9) * whole_s)
        except subprocess.TimeoutExpired:
            run.kill()  # the main process only: its workers must notice and end
            run.wait()
            killed += 1
        _wait_for(lambda session=run.pid: not _session_members(session))
    place.back_up()
    place.restic().run("check", "--read-data")
    assert differences(place.data, place.restored(tmp_path / "out"), top=True) == [], f"seed {seed}"
    assert killed, f"no run was killed (seed {seed}): this test proved nothing"


def _start_backup(place: Place) -> subprocess.Popen[bytes]:
    script = (
        "from pathlib import Path; from tests.workflow.backups import Place;"
        f"Place(Path({str(place.repository)!r}), Path({str(place.data)!r})).back_up()"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen([sys.executable, "-c", script], env=environment, start_new_session=True)


def _session_members(session: int) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(process.name)
    return found
