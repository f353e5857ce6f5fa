"""A command's output as a stream: what it yields, how it fails, and that nothing is left running."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from drctl.errors import SourceError
from drctl.sources.command import CommandOptions, CommandSource, CommandStream


def stream(*command: str, **options: Any) -> CommandStream:
    return CommandSource(CommandOptions(command=command, filename="f", **options)).open()


def shell(script: str, **options: Any) -> CommandStream:
    return stream("/bin/sh", "-c", script, **options)


def read_all(opened: CommandStream, size: int = 1 << 16) -> bytes:
    buffer, whole = memoryview(bytearray(size)), b""
    while count := opened.readinto(buffer):
        whole += bytes(buffer[:count])
    return whole


def wait_until_gone(process_id: int) -> None:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return  # nobody's child to reap here, and it runs no more
        except (FileNotFoundError, ProcessLookupError):
            return
        time.sleep(0.01)
    raise AssertionError(f"process {process_id} still runs")


def test_the_output_is_the_stream_byte_for_byte() -> None:
    opened = stream("printf", "a\\0b%s", "$(id);x")
    assert read_all(opened, 3) == b"a\0b$(id);x"
    opened.finish()


def test_the_path_is_absolute_in_the_snapshot() -> None:
    for name in ("dumps/shop.sql", "/dumps/shop.sql"):
        assert CommandSource(CommandOptions(command=("true",), filename=name)).path == b"/dumps/shop.sql"


@pytest.mark.parametrize("name", ["", "/", "a/", "../x", "a//b", "a\0", "."])
def test_a_file_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a file name"):
        CommandOptions(command=("true",), filename=name)


def test_a_large_stream_with_a_flood_of_complaints_neither_hangs_nor_grows() -> None:
    opened = shell("head -c 30000000 /dev/zero; head -c 3000000 /dev/zero >&2; head -c 1000 /dev/zero")
    assert len(read_all(opened)) == 30_001_000
    opened.finish()
    assert len(opened._complaint) <= 8 << 10


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo data; echo first >&2; echo 'disk is gone' >&2; exit 3","exited with 3: disk is gone"),
        ("echo data; kill -9 $$", "was ended by SIGKILL"),
        ("echo data; kill -TERM $$", "was ended by SIGTERM"),
        ("true", "exited with 0 but wrote nothing"),
        ("echo why >&2", "wrote nothing: why"),
        ("false", "exited with 1"),
        ("printf '\\033[31mred\\r\\342\\200\\256gnp\\377' >&2; exit 1", r"\x1b[31mred\r\u202egnp\xff"),
    ],
)  # fmt: skip
def test_an_incomplete_stream_fails_and_says_why(script: str, says: str) -> None:
    opened = shell(script)
    read_all(opened)
    with pytest.raises(SourceError) as failed:
        opened.finish()
    assert says in failed.value.message
    assert failed.value.message.isprintable()


def test_arguments_are_not_in_the_error() -> None:
    opened = stream("/bin/sh", "-c", "exit 1", "canary-secret")
    read_all(opened)
    with pytest.raises(SourceError) as failed:
        opened.finish()
    assert "canary" not in str(failed.value)


@pytest.mark.parametrize(
    ("program", "why"), [("/no/such/program", "no such file"), ("/etc/passwd", "permission denied")]
)
def test_a_program_that_cannot_be_started_is_a_source_error(program: str, why: str) -> None:
    with pytest.raises(SourceError, match=why):
        stream(program)


def test_a_command_that_hangs_is_ended_with_its_whole_group_in_time(tmp_path: Path) -> None:
    started = time.monotonic()
    opened = shell(f"sleep 60 & echo $! > {tmp_path}/child; wait", timeout=timedelta(seconds=0.5))
    with pytest.raises(SourceError, match="did not end in time"):
        read_all(opened)
    assert time.monotonic() - started < 5
    wait_until_gone(int((tmp_path / "child").read_text()))


def test_a_command_that_closes_its_output_and_hangs_is_ended_in_time() -> None:
    opened = shell("echo data; exec 1>&-; exec sleep 60", timeout=timedelta(seconds=0.5))
    assert read_all(opened) == b"data\n"
    with pytest.raises(SourceError, match="did not end in time"):
        opened.finish()


def test_aborting_ends_the_whole_group_at_once_and_twice_is_no_error(tmp_path: Path) -> None:
    opened = shell(f"trap '' TERM INT HUP; sleep 60 & echo $! > {tmp_path}/child; cat /dev/zero")
    assert opened.readinto(memoryview(bytearray(10))) == 10
    opened.abort()
    opened.abort()
    wait_until_gone(int((tmp_path / "child").read_text()))


def test_what_a_finished_command_left_in_the_background_is_ended(tmp_path: Path) -> None:
    opened = shell(f"sleep 60 >/dev/null 2>&1 & echo $! > {tmp_path}/child; echo data")
    assert read_all(opened) == b"data\n"
    opened.finish()
    wait_until_gone(int((tmp_path / "child").read_text()))


def test_the_command_dies_with_drctl(tmp_path: Path) -> None:
    script = f"""
from drctl.sources.command import *
import os, time
command = ("/bin/sh", "-c", "echo $$; exec sleep 60")
opened = CommandSource(CommandOptions(command=command, filename="f")).open()
buffer = memoryview(bytearray(99))
count = opened.readinto(buffer)
open({str(tmp_path / "pid")!r}, "wb").write(bytes(buffer[:count]))
print("ready", flush=True)
time.sleep(60)
"""
    drctl = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.environ["PATH"]},
    )
    assert drctl.stdout
    assert drctl.stdout.readline() == b"ready\n"
    drctl.send_signal(signal.SIGKILL)
    drctl.wait()
    drctl.stdout.close()
    wait_until_gone(int((tmp_path / "pid").read_text()))


def test_the_environment_is_minimal_and_what_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", "secret")
    monkeypatch.setenv("PGPASSFILE", "/x")
    opened = stream("/usr/bin/env", environment=("PGPASSFILE",))
    seen = dict(line.split("=", 1) for line in read_all(opened).decode().splitlines())
    opened.finish()
    assert seen["PGPASSFILE"] == "/x"
    assert "CANARY" not in seen
    assert seen["PATH"] == os.environ["PATH"]
    with pytest.raises(SourceError, match="needs NOT_THERE"):
        stream("/usr/bin/env", environment=("NOT_THERE",))


def test_standard_input_is_empty_and_no_descriptor_is_inherited() -> None:
    inherited = os.open("/etc/hostname", os.O_RDONLY)
    os.set_inheritable(inherited, True)
    try:
        opened = shell("cat; ls /proc/$$/fd; echo end")
        assert read_all(opened).decode().split() == ["0", "1", "2", "end"]
        opened.finish()
    finally:
        os.close(inherited)


def test_no_descriptor_or_zombie_is_left() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for script in ("echo x", "exit 1"):
        opened = shell(script)
        read_all(opened)
        try:
            opened.finish()
        except SourceError:
            assert script == "exit 1"
        with pytest.raises(ChildProcessError):  # reaped
            os.waitpid(opened._process.pid, os.WNOHANG)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_source_can_be_sent_to_another_process() -> None:
    source = pickle.loads(pickle.dumps(CommandSource(CommandOptions(command=("echo", "x"), filename="f"))))
    assert read_all(source.open()) == b"x\n"
