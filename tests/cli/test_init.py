"""`drctl init` makes all three or nothing, and never writes over anything."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Completed, Home, json_lines

Run = Callable[..., Completed]


def _everything_in(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_plan_is_valid_and_the_repository_opens_with_stock_restic(home: Home) -> None:
    assert home.run("plan", "validate").returncode == 0
    restic = ["restic", "-r", str(home.repository), "-p", str(home.key_file), "--no-cache", "check"]
    done = subprocess.run(restic, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "no errors were found" in done.stdout


def test_the_key_has_256_bits_and_only_its_owner_may_read_it(home: Home) -> None:
    assert re.fullmatch(r"[0-9a-f]{64}\n", home.key_file.read_text())
    assert home.key_file.stat().st_mode & 0o777 == 0o600


def test_no_two_keys_are_alike_and_no_key_is_printed(drctl: Run, tmp_path: Path) -> None:
    keys = set()
    for name in ("one", "two"):
        done = drctl("init", tmp_path / name, "--path", "/etc", "--output", "json")
        key = (tmp_path / name / "repository.key").read_text().strip()
        assert key not in done.stdout + done.stderr
        keys.add(key)
    assert len(keys) == 2


def test_it_says_how_to_keep_the_key_and_how_restic_opens_the_repository(drctl: Run, tmp_path: Path) -> None:
    done = drctl("init", tmp_path, "--path", "/etc")
    assert done.returncode == 0
    assert "Keep the key safe" in done.stdout
    (command,) = re.findall(r"restic -r \S+ --password-file \S+ snapshots", done.stdout)
    subprocess.run(command.split(), check=True, capture_output=True)


@pytest.mark.parametrize("taken", ["drctl.yaml", "repository.key", "repository/config"])
def test_nothing_that_exists_is_overwritten_and_nothing_else_is_left(
    drctl: Run, tmp_path: Path, taken: str
) -> None:
    (tmp_path / taken).parent.mkdir(exist_ok=True)
    (tmp_path / taken).write_text("mine")
    done = drctl("init", tmp_path, "--path", "/etc")
    assert done.returncode == 40
    assert taken in done.stderr
    assert _everything_in(tmp_path) == {str(tmp_path / taken): b"mine"}


def test_a_second_init_in_one_folder_changes_nothing(home: Home, drctl: Run) -> None:
    before = _everything_in(home.folder)
    assert drctl("init", home.folder / "drctl", "--path", home.tree).returncode == 40
    assert _everything_in(home.folder) == before


def test_after_a_failure_neither_plan_nor_key_is_left(drctl: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    done = drctl("init", tmp_path / "d", "--path", "/etc", "--repository", tmp_path / "file" / "repository")
    assert done.returncode not in (0, 2)
    assert _everything_in(tmp_path) == {str(tmp_path / "file"): b"not a folder"}


@pytest.mark.parametrize("made", [("drctl.yaml",), ("drctl.yaml", "repository.key")])
def test_what_a_killed_init_left_is_finished_by_the_command_that_the_hint_names(
    home: Home, drctl: Run, made: tuple[str, ...]
) -> None:
    folder = home.folder / "drctl"
    for path in [path for path in folder.iterdir() if path.name not in made]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    again = drctl("init", folder, "--path", home.tree)
    assert again.returncode == 40
    (hint,) = re.findall(r"^hint: .*finish it: drctl (.*)$", again.stderr, re.MULTILINE)
    assert drctl(*hint.split()).returncode == 0
    assert home.run("backup", "run").returncode == 0


def test_an_unknown_policy_is_told_and_nothing_is_left(drctl: Run, tmp_path: Path) -> None:
    done = drctl("init", tmp_path, "--path", "/etc", "--policy", "nightly-30")
    assert done.returncode == 2
    assert "nightly-30d" in done.stderr, "did you mean"
    assert _everything_in(tmp_path) == {}


def test_a_repository_inside_the_tree_is_not_backed_up_into_itself(drctl: Run, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("data")
    assert drctl("init", tmp_path / "d[1]", "--path", tmp_path).returncode == 0
    done = drctl("-p", tmp_path / "d[1]" / "drctl.yaml", "backup", "run", "--output", "json")
    assert done.returncode == 0, done.stderr
    (backup,) = [line for line in json_lines(done) if line["message_type"] == "backup"]
    assert backup["files"] == 3, "data, the plan and the key"
