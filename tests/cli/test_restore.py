"""`drctl restore` brings back what was backed up, and touches nothing that it was not told to."""

from __future__ import annotations

import filecmp
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from drctl.cli.instant import read_instant
from drctl.errors import UsageError
from tests.cli.conftest import Home, json_lines


def _same(first: Path, second: Path) -> bool:
    compared = filecmp.dircmp(first, second, ignore=[])
    names = [*compared.left_only, *compared.right_only, *compared.funny_files]
    content = filecmp.cmpfiles(first, second, compared.common_files, shallow=False)
    below = [_same(first / name, second / name) for name in compared.common_dirs]
    return not names and not content[1] and not content[2] and all(below)


def _below(target: Path, tree: Path) -> Path:
    return target / str(tree).lstrip("/")


def test_what_was_backed_up_comes_back_byte_for_byte(home: Home) -> None:
    home.run("backup", "run")
    target = home.folder / "back"
    done = home.run("restore", "--target", target, "--verify")
    assert done.returncode == 0, done.stderr
    assert "2 files, 10 KiB, verified" in done.stdout
    assert _same(home.tree, _below(target, home.tree))


def test_one_path_comes_back_alone_and_root_strips_what_lies_above(home: Home) -> None:
    home.run("backup", "run")
    target = home.folder / "back"
    done = home.run("restore", "latest", "-t", target, "--root", home.tree, "--path", home.tree / "folder")
    assert done.returncode == 0, done.stderr
    assert [str(path.relative_to(target)) for path in sorted(target.rglob("*"))] == [
        "folder",
        "folder/numbers",
    ]


def test_an_earlier_state_comes_back_by_time_and_by_id(home: Home) -> None:
    home.run("backup", "run")
    between = datetime.now(UTC).isoformat()
    (home.tree / "hello.txt").write_text("changed\n")
    home.run("backup", "run")
    for number, choice in enumerate((["--at", between, "-s", "shop"], [home.snapshot_ids()[0]])):
        target = home.folder / f"back{number}"
        done = home.run("restore", *choice, "-t", target, "--root", home.tree)
        assert done.returncode == 0, done.stderr
        assert (target / "hello.txt").read_text() == "hello\n"


def test_a_target_that_is_not_empty_is_refused_and_untouched(home: Home) -> None:
    home.run("backup", "run")
    target = home.folder / "used"
    target.mkdir()
    (target / "hello.txt").write_text("precious")
    (target / "other").write_text("also precious")
    options = ["-t", str(target), "--root", str(home.tree)]
    assert home.run("restore", *options).returncode == 40
    for how in ("--in-place", "--delta"):
        done = home.run("restore", *options, how)
        assert done.returncode == 40, "not without --yes"
        assert "overwrite files" in done.stderr
        assert home.run("restore", *options, how, "--delete", "--dry-run").returncode == 0
    assert (target / "hello.txt").read_text() == "precious"
    assert home.run("restore", *options, "--delta", "--yes").returncode == 0
    assert (target / "hello.txt").read_text() == "hello\n"
    assert (target / "other").read_text() == "also precious"
    assert home.run("restore", *options, "--in-place", "--delete", "--yes").returncode == 0
    assert _same(home.tree, target)


def test_a_dry_run_writes_nothing_and_says_what_it_would_do(home: Home) -> None:
    home.run("backup", "run")
    target = home.folder / "back"
    lines = home.lines("restore", "-t", target, "--dry-run")
    (plan,) = [line for line in lines if line["message_type"] == "restore_plan"]
    assert (plan["files"], plan["bytes"], plan["deletions"]) == (2, 10246, 0)
    assert not target.exists()


def test_damage_is_told_with_the_files_it_costs_and_the_rest_comes_back(home: Home) -> None:
    (home.tree / "random").write_bytes(os.urandom(200_000))
    home.run("backup", "run")
    pack = max((home.repository / "data").glob("*/*"), key=lambda path: path.stat().st_size)
    pack.chmod(0o600)
    data = bytearray(pack.read_bytes())
    data[1000] ^= 1
    pack.write_bytes(data)
    target = home.folder / "back"
    done = home.run("restore", "-t", target, "--root", home.tree, "--output", "json")
    assert done.returncode == 30
    lines = json_lines(done)
    assert lines[-1]["message_type"] == "error"
    assert [line["path"] for line in lines if line["message_type"] == "problem"]


@pytest.mark.parametrize(
    "options",
    [
        ["--delete"],
        ["--in-place", "--delta"],
        ["--at", "yesterday"],
        ["1a2b", "--at", "2026-01-01"],
        ["--service", "nope"],
        ["--path", "/not/there"],
        ["abcdef"],
    ],
)
def test_what_cannot_be_meant_is_a_usage_error_and_writes_nothing(home: Home, options: list[str]) -> None:
    home.run("backup", "run")
    done = home.run("restore", "-t", home.folder / "back", *options)
    assert done.returncode == 2, done.stderr
    assert not (home.folder / "back").exists()


def test_a_time_without_an_offset_is_one_of_the_plans_time_zone() -> None:
    noon_utc = datetime(2026, 7, 1, 12, 0, 0, 999_999, tzinfo=UTC)
    assert read_instant("2026-07-01 14:00", "Europe/Berlin") == noon_utc
    assert read_instant("2026-07-01T12:00:00Z", "Europe/Berlin") == noon_utc
    exact = datetime(2026, 7, 1, 12, 0, 0, 500_000, tzinfo=UTC)
    assert read_instant("2026-07-01T12:00:00.5Z", "Europe/Berlin") == exact
    with pytest.raises(UsageError, match="not a time"):
        read_instant("12 o'clock", "UTC")


def test_the_time_that_a_list_shows_finds_its_snapshot(home: Home) -> None:
    home.run("backup", "run")
    shown = home.run("backup", "list").stdout.splitlines()[1].split()
    done = home.run("restore", "--at", " ".join(shown[1:3]), "-t", home.folder / "back")
    assert done.returncode == 0, done.stderr
    assert shown[0] in done.stdout
