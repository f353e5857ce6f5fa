"""What a disk may do to us (safety lines 1, 2, 3, 4, 7, 40)."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from drctl.errors import AbsentError, AlreadyExistsError, StorageError, UnreachableError
from drctl.storage import durable
from drctl.storage.local import LocalOptions, LocalStorage
from tests.servers.processes import require

CALLS = "trace=openat,open,mkdir,writev,fsync,renameat2,link,linkat,unlink,unlinkat"


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    storage = LocalStorage(LocalOptions(str(tmp_path / "repo")))
    storage.save("config", [b"x"])
    return storage


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB and 20 files."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=20", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", disk], check=True)


def victim(base: Path, trace: Path, act: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run `act` with a `storage` in a process under strace; what it prints is the outcome."""
    script = textwrap.dedent(
        f"""
        from drctl.errors import DrctlError
        from drctl.storage.local import LocalOptions, LocalStorage
        storage = LocalStorage(LocalOptions({str(base)!r}))
        try:
            {act}
            print("acknowledged")
        except DrctlError as exc:
            print(type(exc).__name__, exc, exc.hint)
        """
    )
    strace = require("strace", "strace")
    command = [
        strace,
        "-f",
        "-qq",
        "-y",
        "-o",
        str(trace),
        "-e",
        CALLS,
        *options,
        sys.executable,
        "-c",
        script,
    ]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path), PYTHONDONTWRITEBYTECODE="1")
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)


def seen(trace: Path, base: Path) -> list[str]:
    """The traced calls on the repository: name and file, in order."""
    steps = []
    for line in trace.read_text().splitlines():
        call = re.search(r"(\w+)\(", line)
        if call is None or str(base) not in line or call[1] in ("open", "openat"):
            continue
        path = re.findall(rf"{re.escape(str(base.parent))}([^\">]*)", line)[-1]
        steps.append(f"{call[1]} {re.sub(r'[.]drctl-[0-9a-f]+[.]tmp', 'TEMP', path)}")
    return steps


def test_the_order_of_a_save_survives_a_power_cut_at_any_point(tmp_path: Path) -> None:
    base, trace = tmp_path / "repo", tmp_path / "trace"
    assert victim(base, trace, 'storage.save("data/aa/aabb", [b"x"])').stdout == "acknowledged\n"
    steps = seen(trace, base)
    write = steps.index("writev /repo/data/aa/TEMP")
    assert steps[write:] == [
        "writev /repo/data/aa/TEMP",
        "fsync /repo/data/aa/TEMP",
        "renameat2 /repo/data/aa/aabb",
        "fsync /repo/data/aa",
    ]
    for made, parent in (("/repo/data", "/repo"), ("/repo/data/aa", "/repo/data")):
        assert f"fsync {parent}" in steps[steps.index(f"mkdir {made}") : write]
    assert re.search(rf"fsync\(\d+<{re.escape(str(tmp_path))}>", trace.read_text())  # the base's own name


def test_directories_another_run_made_are_synced_before_they_are_relied_on(tmp_path: Path) -> None:
    base, trace = tmp_path / "repo", tmp_path / "trace"
    (base / "data" / "aa").mkdir(parents=True)
    (base / "data" / "bb").mkdir()
    saves = 'storage.save("data/aa/aa", [b"x"]); storage.save("data/bb/bb", [b"x"])'
    assert victim(base, trace, saves).stdout == "acknowledged\n"
    steps = seen(trace, base)
    before = steps[: steps.index("writev /repo/data/aa/TEMP")]
    assert {"fsync /repo", "fsync /repo/data"} <= set(before)
    assert steps.count("fsync /repo/data") == 1  # one is enough for all names in it


@pytest.mark.parametrize("error", ["EIO", "ENOSPC", "EDQUOT"])
def test_a_file_whose_fsync_failed_is_never_synced_again(tmp_path: Path, error: str) -> None:
    base, trace = tmp_path / "repo", tmp_path / "trace"
    LocalStorage(LocalOptions(str(base))).save("data/aa/00", [b"x"])
    # fsyncs 1 and 2 are of /repo/data and /repo, then comes the file's
    outcome = victim(
        base, trace, 'storage.save("data/aa/aabb", [b"x" * 1000])', "-e", f"inject=fsync:error={error}:when=3"
    )
    assert outcome.stdout.startswith("StorageError"), outcome
    assert "None" not in outcome.stdout
    synced = re.findall(r"fsync\(\d+<([^>]*tmp)>", trace.read_text())
    assert len(synced) == 1
    assert os.listdir(base / "data" / "aa") == ["00"]


def test_a_directory_that_cannot_be_synced_fails_the_save_and_takes_it_back(tmp_path: Path) -> None:
    base, trace = tmp_path / "repo", tmp_path / "trace"
    LocalStorage(LocalOptions(str(base))).save("data/aa/00", [b"x"])
    outcome = victim(base, trace, 'storage.save("data/aa/11", [b"x"])', "-e", "inject=fsync:error=EIO:when=4")
    assert outcome.stdout.startswith("StorageError"), outcome
    assert os.listdir(base / "data" / "aa") == ["00"]


@pytest.mark.parametrize("call", ["writev", "fsync", "renameat2", "mkdir", "unlink"])
@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("inject", ["signal=KILL", "error=EIO", "error=ENOSPC"])
def test_a_fault_at_any_call_leaves_all_or_nothing_and_a_rerun_succeeds(
    tmp_path: Path, call: str, nth: int, inject: str
) -> None:
    base, trace = tmp_path / "repo", tmp_path / "trace"
    LocalStorage(LocalOptions(str(base))).save("config", [b"old"])
    act = (
        'storage.save("data/aa/aa", [b"x" * 1000]); storage.save("data/bb/bb", [b"x"]); '
        'storage.delete("config")'
    )
    outcome = victim(base, trace, act, "-e", f"inject={call}:{inject}:when={nth}")
    again = LocalStorage(LocalOptions(str(base)))
    found = {file.key: file.size for file in again.list("")}
    assert found.items() <= {"config": 3, "data/aa/aa": 1000, "data/bb/bb": 1}.items()
    if outcome.stdout == "acknowledged\n":
        assert found == {"data/aa/aa": 1000, "data/bb/bb": 1}
    else:
        assert outcome.returncode != 0 or outcome.stdout.startswith("StorageError"), outcome
    for key, content in (("data/aa/aa", b"x" * 1000), ("data/bb/bb", b"x")):
        if key not in found:
            again.save(key, [content])
        assert again.load(key) == content
    again.delete("config")
    # one killed before its first byte cannot be told from one that is just starting
    assert all(path.stat().st_size == 0 for path in base.rglob(".drctl*"))


def test_a_lying_disk_is_the_positive_control(tmp_path: Path) -> None:
    """fsync that only pretends is not noticed: the sweep above measures what it says it measures."""
    outcome = victim(
        tmp_path / "repo", tmp_path / "trace", 'storage.save("a", [b"x"])', "-e", "inject=fsync:retval=0"
    )
    assert outcome.stdout == "acknowledged\n"


def test_without_renameat2_a_hard_link_refuses_a_taken_name_too(tmp_path: Path) -> None:
    base, trace = tmp_path / "repo", tmp_path / "trace"
    no_such_call = ("-e", "inject=renameat2:error=EINVAL")
    act = 'storage.save("data/aa/aa", [b"first"])'
    assert victim(base, trace, act, *no_such_call).stdout == "acknowledged\n"
    assert victim(base, trace, act, *no_such_call).stdout.startswith("AlreadyExistsError")
    assert "link(" in trace.read_text() or "linkat(" in trace.read_text()
    assert os.listdir(base / "data" / "aa") == ["aa"]
    assert (base / "data" / "aa" / "aa").stat().st_nlink == 1


@pytest.mark.parametrize("size", [2 << 20, 1])
def test_a_full_disk_fails_the_save_with_a_hint_and_leaves_nothing(small_disk: Path, size: int) -> None:
    storage = LocalStorage(LocalOptions(str(small_disk)))
    storage.save("config", [b"x" * 1000])
    with pytest.raises(StorageError) as caught:
        for n in range(40):
            storage.save(f"index/{n:02x}", [b"x" * size])
    assert "no space left" in caught.value.message
    assert "prune" in (caught.value.hint or "")
    assert [*small_disk.rglob(".drctl*")] == []
    assert storage.load("config") == b"x" * 1000


def test_a_file_size_limit_is_a_clear_error(tmp_path: Path) -> None:
    outcome = victim(
        tmp_path / "repo",
        tmp_path / "trace",
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        'resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); storage.save("a", [b"x" * 5000])',
    )
    assert outcome.stdout.startswith("StorageError"), outcome
    assert "ulimit" in outcome.stdout


def test_leftovers_of_killed_writers_go_and_files_being_written_stay(
    storage: LocalStorage, tmp_path: Path
) -> None:
    directory = tmp_path / "repo" / "locks"
    directory.mkdir()
    (directory / ".drctl-00.tmp").write_bytes(b"left by a killed run")
    (directory / "mine").write_bytes(b"a person's")
    being_written = directory / ".drctl-11.tmp"
    writer = (
        "import fcntl, sys; f = open(sys.argv[1], 'wb'); fcntl.flock(f, fcntl.LOCK_EX); "
        "f.write(b'x'); f.flush(); print('ready', flush=True); sys.stdin.read()"
    )
    started = subprocess.Popen(
        [sys.executable, "-c", writer, being_written], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert started.stdout is not None
        assert started.stdout.readline() == b"ready\n"
        storage.save("locks/aa", [b"x"])
        assert sorted(os.listdir(directory)) == [".drctl-11.tmp", "aa", "mine"]
    finally:
        started.communicate(b"")


def test_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        LocalStorage(LocalOptions(str(tmp_path / "a" / "repo"))).save("data/aa/aabb", [b"x"])
    finally:
        os.umask(old)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "a").rglob("*")}
    assert modes == {"repo": 0o700, "data": 0o700, "aa": 0o700, "aabb": 0o600}


def test_planted_links_and_pipes_are_not_read(storage: LocalStorage, tmp_path: Path) -> None:
    base = tmp_path / "repo"
    os.mkfifo(base / "pipe")
    os.symlink("/etc/passwd", base / "link")
    for key in ("pipe", "link"):
        with pytest.raises(StorageError):
            storage.load(key)
        with pytest.raises(StorageError):
            storage.stat(key)
        with pytest.raises(AlreadyExistsError):
            storage.save(key, [b"x"])
    assert [file.key for file in storage.list("")] == ["config"]


def test_a_directory_in_a_files_place_is_an_error(storage: LocalStorage, tmp_path: Path) -> None:
    (tmp_path / "repo" / "index").mkdir()
    (tmp_path / "repo" / "data").write_bytes(b"a file where a directory must be")
    with pytest.raises(StorageError):
        storage.load("index")
    with pytest.raises(StorageError, match="not a directory"):
        storage.save("data/aa/aa", [b"x"])
    with pytest.raises(StorageError):
        list(storage.list("data/"))


def test_a_missing_base_is_an_error_and_not_an_empty_storage(tmp_path: Path) -> None:
    storage = LocalStorage(LocalOptions(str(tmp_path / "not" / "mounted")))
    with pytest.raises(AbsentError):
        list(storage.list("snapshots/"))
    with pytest.raises(AbsentError):
        storage.load("config")


def test_what_restic_leaves_behind_is_not_listed(storage: LocalStorage, tmp_path: Path) -> None:
    (tmp_path / "repo" / "config-tmp-123").write_bytes(b"x")
    (tmp_path / "repo" / "README.txt").write_bytes(b"x")
    (tmp_path / "repo" / ".hidden").write_bytes(b"x")
    assert [file.key for file in storage.list("")] == ["config"]


@pytest.mark.parametrize("number", [errno.ESTALE, errno.ETIMEDOUT])
def test_a_file_server_that_is_away_may_come_back(tmp_path: Path, number: int) -> None:
    outcome = victim(
        tmp_path / "repo", tmp_path / "trace", 'storage.save("a", [b"x"])', "-e",
        f"inject=writev:error={errno.errorcode[number]}",
    )  # fmt: skip
    assert outcome.stdout.startswith(UnreachableError.__name__), outcome


def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.writev
    monkeypatch.setattr(os, "writev", lambda fd, views: real(fd, [bytes(views[0])[:7]]))
    parts = [b"0123456789" * 5, b"", b"abc", b"d" * 20]
    with durable.new_file(str(tmp_path / "file"), parts):
        pass
    assert (tmp_path / "file").read_bytes() == b"".join(parts)
