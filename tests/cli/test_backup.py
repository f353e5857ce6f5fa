"""`drctl backup` and what it says: data, problems and exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import DEFAULT_SIGNALS, Home, environment, json_lines


def test_a_first_backup_is_full_and_the_next_is_incremental(home: Home) -> None:
    assert home.run("backup", "run").returncode == 0
    done = home.run("backup", "run")
    assert done.returncode == 0
    assert "incremental, 2 files, 10" in done.stdout
    assert done.stderr == ""
    modes = [line["mode"] for line in home.lines("backup", "list") if line["message_type"] == "snapshot"]
    assert modes == ["full", "incremental"]


def test_a_snapshot_is_listed_and_shown_with_the_same_fields(home: Home) -> None:
    (made,) = [line for line in home.lines("backup", "run", "--tag", "x") if line["message_type"] == "backup"]
    (listed,) = [line for line in home.lines("backup", "list", "shop") if line["message_type"] == "snapshot"]
    (shown, summary) = home.lines("backup", "show", str(made["short_id"]))
    assert listed == shown
    assert {key: made[key] for key in shown if key not in ("message_type", "received")} == {
        key: value for key, value in shown.items() if key not in ("message_type", "received")
    }
    assert shown["tags"] == ["x"]
    assert summary == {"message_type": "summary", "schema_version": 1, "exit_code": 0}
    assert str(made["id"]) in home.run("backup", "show", str(made["id"])[:6]).stdout


def test_what_could_not_be_read_is_listed_exactly_and_ends_with_3(home: Home) -> None:
    gone = str(home.folder / "gone")
    home.plan.write_text(home.plan.read_text().replace("paths:\n", f'paths:\n          - "{gone}"\n'))
    done = home.run("backup", "run", "--output", "json")
    assert done.returncode == 3, done.stderr
    lines = json_lines(done)
    (problem,) = [line for line in lines if line["message_type"] == "problem"]
    assert (problem["path"], problem["trouble"]) == (gone, "unreadable")
    (made,) = [line for line in lines if line["message_type"] == "backup"]
    assert (made["problems"], made["files"]) == (1, 2)
    assert lines[-1]["exit_code"] == 3
    text = home.run("backup", "run")
    assert text.returncode == 3
    assert f"drctl: warning: unreadable: {gone}: " in text.stderr


def test_an_unknown_service_or_source_is_a_usage_error(home: Home) -> None:
    done = home.run("backup", "run", "shpo")
    assert done.returncode == 2
    assert "no service 'shpo'" in done.stderr
    assert home.run("backup", "run", "--source", "nope").returncode == 2
    assert home.run("backup", "list", "shpo").returncode == 2


def test_one_source_that_fails_keeps_no_other_from_being_backed_up(home: Home) -> None:
    text = home.plan.read_text()
    more = f"      gone:\n        kind: files\n        paths: [{home.folder}/gone]\n"
    more += "      broken:\n        kind: command\n        command: [/bin/false]\n        filename: /dump\n"
    home.plan.write_text(text.replace("      files:\n", more + "      files:\n"))
    done = home.run("backup", "run", "--output", "json")
    lines = json_lines(done)
    assert done.returncode == 1, done.stderr
    assert [line["source"] for line in lines if line["message_type"] == "backup"] == ["files"]
    failures = [str(line["text"]) for line in lines if line["message_type"] == "failure"]
    assert [text.split(":")[0] for text in failures] == ["shop/gone", "shop/broken"]
    assert lines[-1]["failed"] == 2
    assert len(home.snapshot_ids()) == 1


def test_the_wrong_key_and_no_repository_have_their_own_exit_codes(home: Home) -> None:
    home.key_file.write_text("another key\n")
    assert home.run("backup", "run").returncode == 12
    assert home.run("backup", "list").returncode == 12
    (home.repository / "config").unlink()
    done = home.run("backup", "list")
    assert done.returncode == 10
    assert "drctl repo init" in done.stderr


def test_a_key_file_that_others_may_read_is_refused(home: Home) -> None:
    home.key_file.chmod(0o640)
    done = home.run("backup", "list")
    assert done.returncode == 40
    assert f"chmod 0600 {home.key_file}" in done.stderr


def _restic(home: Home, *words: str) -> list[str]:
    command = ["restic", "-r", str(home.repository), "-p", str(home.key_file), "--no-cache", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_what_is_in_a_snapshot_is_what_stock_restic_lists(home: Home) -> None:
    (home.tree / "link").symlink_to("hello.txt")
    os.mkfifo(home.tree / "fifo")
    home.run("backup", "run")
    (snapshot,) = home.snapshot_ids()
    entries = [line for line in home.lines("backup", "show", snapshot, "--files") if "path" in line]
    theirs = [json.loads(line) for line in _restic(home, "ls", "--json", snapshot)][1:]
    assert {line["path"]: (line["type"], line["size"]) for line in entries} == {
        line["path"]: (line["type"], line.get("size", 0) if line["type"] == "file" else None)
        for line in theirs
    }
    below = home.lines("backup", "show", snapshot, "--files", "--below", home.tree / "folder")
    assert [line["path"] for line in below if "path" in line] == [
        str(home.tree / "folder"),
        str(home.tree / "folder" / "numbers"),
    ]
    assert home.run("backup", "show", snapshot, "--files", "--below", "/not/there").returncode == 2


def test_a_difference_is_what_stock_restic_calls_one(home: Home) -> None:
    home.run("backup", "run")
    (home.tree / "new").mkdir()
    (home.tree / "new" / "file").write_text("new")
    (home.tree / "hello.txt").unlink()
    (home.tree / "hello.txt").symlink_to("elsewhere")
    (home.tree / "folder" / "numbers").write_text("changed")
    home.run("backup", "run")
    older, newer = home.snapshot_ids()
    ours = home.run("backup", "diff", older, newer).stdout.splitlines()
    theirs = [line for line in _restic(home, "diff", older, newer) if line[:2] in ("+ ", "- ", "M ", "T ")]
    assert {tuple(line.rstrip("/").split(maxsplit=1)) for line in ours[:-1]} == {
        tuple(line.rstrip("/").split(maxsplit=1)) for line in theirs
    }
    assert ours[-1].startswith("2 added, 0 removed, 1 replaced, 1 content, ")
    assert home.run("backup", "diff", older, older).stdout.startswith("0 added, 0 removed")


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_backup_leaves_no_lock_worker_or_snapshot(home: Home, number: signal.Signals) -> None:
    for name in range(40):
        (home.tree / f"random{name}").write_bytes(os.urandom(4_000_000))
    program = [*DEFAULT_SIGNALS, sys.executable, "-m", "drctl", "-p", str(home.plan)]
    process = subprocess.Popen(
        [*program, "backup", "run", "--output", "json"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["message_type"] == "status"
    workers = _children(process.pid)
    process.send_signal(number)
    rest, messages = process.communicate(timeout=60)
    assert process.returncode == 130, messages
    last = json.loads(rest.splitlines()[-1])
    assert (last["message_type"], last["exit_code"]) == ("error", 130)
    assert "Traceback" not in messages
    assert not [worker for worker in workers if Path(f"/proc/{worker}").exists()]
    assert list((home.repository / "locks").iterdir()) == []
    assert home.snapshot_ids() == []
    assert home.run("backup", "run").returncode == 0
