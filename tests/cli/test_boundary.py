"""Whatever happens in a command ends as one line, perhaps a hint, and the right exit code."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import DEFAULT_SIGNALS, ROOT, Completed, environment

Run = Callable[..., Completed]


def _lines(done: Completed) -> list[dict[str, object]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_known_error_is_one_inert_line_and_a_hint(sample: Run) -> None:
    done = sample("fails")
    assert done.returncode == 11
    assert done.stdout == ""
    assert done.stderr == (
        "drctl: error: repository \\x1b[2J\\u202egpj.exe\\r\\nroot: fine\\x07\\xff is locked\n"
        "hint: wait, or run: drctl repo unlock\n"
    )


def test_an_error_is_the_last_json_line_and_a_line_on_stderr(sample: Run) -> None:
    done = sample("fails", "--output", "json")
    assert done.returncode == 11
    (last,) = _lines(done)
    assert last["message_type"] == "error"
    assert last["exit_code"] == 11
    assert last["hint"] == "wait, or run: drctl repo unlock"
    assert done.stderr.startswith("drctl: error: repository")


def test_a_defect_is_one_line_and_its_traceback_lies_in_a_private_file(sample: Run, tmp_path: Path) -> None:
    done = sample("breaks", TMPDIR=str(tmp_path))
    assert done.returncode == 1
    message, hint = done.stderr.splitlines()
    assert message == "drctl: error: this is a defect in drctl: ZeroDivisionError: first line"
    (file,) = tmp_path.iterdir()
    assert hint.endswith(str(file))
    assert "in breaks" in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600


def test_drctl_debug_shows_the_traceback_at_once(sample: Run, tmp_path: Path) -> None:
    done = sample("breaks", DRCTL_DEBUG="1", TMPDIR=str(tmp_path))
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_end_of_file_inside_a_command_is_no_interruption(sample: Run, tmp_path: Path) -> None:
    assert sample("ends-early", TMPDIR=str(tmp_path)).returncode == 1


def test_what_a_command_returns_is_the_exit_code(sample: Run) -> None:
    assert sample("incomplete").returncode == 3
    assert sample("nested", "deep").returncode == 3
    assert _lines(sample("incomplete", "--output=json"))[-1]["exit_code"] == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_clean_up_run_and_ends_with_130(number: signal.Signals, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*DEFAULT_SIGNALS, sys.executable, "-m", "tests.cli.sample", "waits", str(tmp_path / "done")],
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(number)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 130
    assert messages == "drctl: error: interrupted\n"
    assert (tmp_path / "done").read_text() == "cleaned up"


def test_a_probe_of_restic_whether_we_live_does_not_end_us(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*DEFAULT_SIGNALS, sys.executable, "-m", "tests.cli.sample", "waits", str(tmp_path / "done")],
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        start_new_session=True,  # without a terminal
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"waiting\n"
    for _ in range(3):
        process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    process.terminate()
    assert process.wait(60) == 130
    process.stdout.close()


def test_a_terminal_that_goes_away_ends_the_run_in_order(tmp_path: Path) -> None:
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(ROOT)
        argv = [*DEFAULT_SIGNALS, sys.executable, "-m", "tests.cli.sample", "waits", str(tmp_path / "done")]
        os.execvpe(argv[0], argv, environment())
    said = b""
    while b"waiting" not in said:
        said += os.read(terminal, 1000)
    os.close(terminal)
    assert (
        os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) > 0
    )  # ended by itself; nobody is left to be told
    assert (tmp_path / "done").read_text() == "cleaned up"


def test_a_usage_error_is_json_even_when_the_wrong_word_comes_first(sample: Run) -> None:
    done = sample("lists", "--nope", "--output", "json")
    assert done.returncode == 2
    assert _lines(done)[-1]["error"] == "no such option '--nope'"
    assert _lines(sample("lists", "--nope", DRCTL_OUTPUT="json"))[-1]["exit_code"] == 2


def test_destroying_without_a_terminal_or_yes_is_refused(sample: Run) -> None:
    done = sample("destroys")
    assert done.returncode == 40
    assert done.stdout == ""
    assert "delete 3 snapshots of web" in done.stderr
    assert sample("destroys", DRCTL_SAMPLE_DESTROYS_YES="1", DRCTL_YES="1").returncode == 40
    assert sample("destroys", "--yes").stdout == "deleted\n"


@pytest.mark.parametrize(("typed", "code"), [("web", 0), ("wbe", 40), ("", 40), ("yes", 40), ("\x04", 40)])
def test_a_person_at_a_terminal_must_type_the_name(typed: str, code: int) -> None:
    import pty

    main_end, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.cli.sample", "destroys"],
        env=environment(),
        cwd=ROOT,
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=terminal,
        text=True,
    )
    import os

    os.close(terminal)
    shown = b""
    while b"Type 'web' to go on: " not in shown:
        shown += os.read(main_end, 1000)
    os.write(main_end, typed.encode() + b"\n")
    data, _ = process.communicate(timeout=60)
    os.close(main_end)
    assert process.returncode == code
    assert data == ("deleted\n" if code == 0 else "")


def test_work_goes_on_when_the_reader_of_standard_output_goes_away() -> None:
    done = subprocess.run(
        f"{sys.executable} -m tests.cli.sample prints-much | head -n 1; echo ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "line 0\n0\n"
    assert done.stderr == "all written\n"


def test_standard_output_on_a_full_disk_is_an_error_and_no_traceback() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tests.cli.sample", "prints-much"],
            env=environment(),
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "drctl: error: cannot write to standard output: No space left on device\n"


def test_a_flag_wins_over_the_environment_and_the_nearer_flag_over_the_farther(
    sample: Run, tmp_path: Path
) -> None:
    for name in ("environment.yaml", "before.yaml", "after.yaml", "drctl.yaml"):
        (tmp_path / name).touch()
    before, after = ["--plan", "before.yaml"], ["-p", "after.yaml"]
    asked = {"cwd": tmp_path, "DRCTL_PLAN": "environment.yaml"}
    assert sample(*before, "plan-file", *after, **asked).stdout == "after.yaml\n"
    assert sample(*before, "plan-file", **asked).stdout == "before.yaml\n"
    assert sample("plan-file", *after, **asked).stdout == "after.yaml\n"
    assert sample("plan-file", **asked).stdout == "environment.yaml\n"
    assert sample("plan-file", cwd=tmp_path).stdout == "drctl.yaml\n"


def test_a_missing_plan_is_a_usage_error_that_says_where_it_was_sought(sample: Run, tmp_path: Path) -> None:
    done = sample("plan-file", cwd=tmp_path)
    assert done.returncode == 2
    assert "drctl.yaml and /etc/drctl/drctl.yaml" in done.stderr
    assert sample("plan-file", "-p", "none.yaml", cwd=tmp_path).returncode == 2


def test_an_interrupt_in_the_middle_of_an_import_ends_with_130_too(sample: Run) -> None:
    done = sample("interrupted-while-importing")
    assert (done.returncode, done.stderr) == (130, "drctl: error: interrupted\n")
