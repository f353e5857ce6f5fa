"""`drctl repo`: what looks after repositories, and what it refuses to do unasked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.cli.conftest import Home, json_lines

HOLD_A_LOCK = """
import sys, time
from drctl.clock import SystemClock
from drctl.domain.secret import Secret
from drctl.repository.opening import open_repository
from drctl.storage.local import LocalOptions, LocalStorage
key = Secret(open(sys.argv[2]).read().strip())
repository = open_repository(LocalStorage(LocalOptions(sys.argv[1])), key)
repository.take_lock(SystemClock(), exclusive=True).confirm()
print("held", flush=True)
time.sleep(60)
"""


def _hold_a_lock(home: Home) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD_A_LOCK, str(home.repository), str(home.key_file)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def _locks(home: Home) -> list[Path]:
    return list((home.repository / "locks").iterdir())


def test_a_sound_repository_is_checked_with_all_its_data(home: Home) -> None:
    home.run("backup", "run")
    summary = home.lines("repo", "check", "--read-data")[-1]
    assert (summary["damaged"], summary["findings"], summary["snapshots"]) == (False, 0, 1)
    assert summary["packs_read"] == summary["packs"] != 0
    assert _locks(home) == []


def test_damage_is_named_and_ends_with_30(home: Home) -> None:
    (home.tree / "random").write_bytes(os.urandom(200_000))
    home.run("backup", "run")
    pack = max((home.repository / "data").glob("*/*"), key=lambda path: path.stat().st_size)
    pack.chmod(0o600)
    pack.write_bytes(bytes([pack.read_bytes()[0] ^ 1]) + pack.read_bytes()[1:])
    assert home.run("repo", "check").returncode == 0, "its length is right"
    done = home.run("repo", "check", "--read-data", "--output", "json")
    assert done.returncode == 30
    findings = [line for line in json_lines(done) if line["message_type"] == "finding"]
    assert {pack.name in str(finding["file"]) for finding in findings} == {True}
    assert "DAMAGED" in home.run("repo", "check", "--read-data-subset", "100%").stdout


def test_a_living_lock_stops_others_with_11_and_unlock_keeps_it(home: Home) -> None:
    process = _hold_a_lock(home)
    try:
        done = home.run("backup", "run")
        assert done.returncode == 11
        done = home.run("repo", "unlock")
        assert "living, kept" in done.stdout
        assert len(_locks(home)) == 1
        assert home.run("repo", "unlock", "--remove-all").returncode == 40
        assert len(_locks(home)) == 1
        assert home.run("repo", "unlock", "--remove-all", "--yes").returncode == 0
        assert _locks(home) == []
    finally:
        process.kill()
        process.wait()


def test_the_lock_of_a_process_that_was_killed_is_removed(home: Home) -> None:
    process = _hold_a_lock(home)
    process.kill()
    process.wait()
    assert len(_locks(home)) == 1
    assert home.lines("repo", "unlock")[-1]["removed"] == 1
    assert _locks(home) == []


def test_an_added_key_opens_and_a_removed_one_does_not(home: Home) -> None:
    first = home.key_file.read_text()
    second = home.folder / "second.key"
    assert home.run("repo", "key", "add", second, "--generate").returncode == 0
    assert second.stat().st_mode & 0o777 == 0o600
    assert home.run("repo", "key", "add", second, "--generate").returncode == 40, "a key is never replaced"
    keys = {bool(line["in_use"]): str(line["id"]) for line in _keys(home)}
    assert home.run("repo", "key", "remove", keys[True], "--yes").returncode == 40, "the one in use stays"
    home.key_file.write_text(second.read_text())
    assert home.run("repo", "key", "remove", keys[True]).returncode == 40, "not without --yes"
    assert home.run("repo", "key", "remove", keys[True][:10], "--yes").returncode == 0
    assert [line["id"] for line in _keys(home)] == [keys[False]]
    home.key_file.write_text(first)
    assert home.run("backup", "list").returncode == 12


def _keys(home: Home) -> list[dict[str, object]]:
    return [line for line in home.lines("repo", "key", "list") if line["message_type"] == "key"]


def test_a_key_that_is_named_by_too_little_is_not_removed(home: Home) -> None:
    done = home.run("repo", "key", "remove", "", "--yes")
    assert done.returncode == 40, "the only key is the one in use"
    assert home.run("repo", "key", "remove", "zz", "--yes").returncode == 2


def _add_repository(home: Home, *, holds_copies: bool) -> None:
    text = home.plan.read_text()
    more = (
        "  other:\n    site: here\n    storage:\n      kind: local\n"
        f"      path: {home.folder}/other\n    key:\n      file: {home.folder}/other.key\n"
    )
    text = text.replace("repositories:\n  main:", f"repositories:\n{more}  main:")
    home.plan.write_text(text.replace("[main]", "[main, other]") if holds_copies else text)


def test_init_makes_a_second_repository_of_the_plan_with_its_own_key(home: Home) -> None:
    _add_repository(home, holds_copies=False)
    assert home.run("repo", "init").returncode == 2, "which one?"
    assert home.run("repo", "init", "other").returncode == 2, "its key is not there"
    assert home.run("repo", "init", "other", "--generate-key").returncode == 0
    assert (home.folder / "other.key").read_text() != home.key_file.read_text()
    assert home.run("repo", "check", "other").returncode == 0
    assert home.run("repo", "init", "other").returncode == 40
    assert home.run("repo", "copy").returncode == 2, "no service has copies in it"


def test_copy_brings_every_snapshot_where_the_plan_wants_it_once(home: Home) -> None:
    _add_repository(home, holds_copies=True)
    home.run("backup", "run")
    home.run("repo", "init", "other", "--generate-key")
    first = home.lines("repo", "copy")
    (done,) = [line for line in first if line["message_type"] == "copied"]
    assert (done["source"], done["target"], done["copied"], done["present"]) == ("main", "other", 1, 0)
    (again,) = [line for line in home.lines("repo", "copy") if line["message_type"] == "copied"]
    assert (again["copied"], again["present"]) == (0, 1)
    assert home.run("repo", "check", "other", "--read-data").returncode == 0
    target = home.folder / "back"
    assert home.run("restore", "-r", "other", "-t", target, "--root", home.tree).returncode == 0
    assert (target / "hello.txt").read_text() == "hello\n"


def test_a_local_folder_can_be_relied_on_and_nothing_of_the_trial_is_left(home: Home) -> None:
    before = sorted(home.repository.rglob("*"))
    lines = home.lines("repo", "verify-storage")
    properties = [line for line in lines if line["message_type"] == "property"]
    assert len(properties) > 5
    assert not [line for line in properties if line["passed"] is False]
    assert [path for path in sorted(home.repository.rglob("*")) if path.is_file()] == [
        path for path in before if path.is_file()
    ]


def test_prune_shows_its_plan_and_acts_only_when_confirmed(home: Home) -> None:
    (home.tree / "random").write_bytes(os.urandom(300_000))
    home.run("backup", "run")
    (home.tree / "random").unlink()
    home.run("backup", "run")
    first = home.snapshot_ids()[0]
    (home.repository / "snapshots" / first).unlink()  # as `restic forget` does
    stored = home.lines("repo", "stats")[-1]["stored_bytes"]
    assert "not needed" in home.run("repo", "prune", "--dry-run").stdout
    assert home.run("repo", "prune", "--max-unused", "0").returncode == 40
    assert home.lines("repo", "stats")[-1]["stored_bytes"] == stored
    done = home.lines("repo", "prune", "--max-unused", "0", "--yes")
    assert (done[-1]["pruned"], done[-1]["proves_absence"]) == (True, True)
    left = home.lines("repo", "stats")[-1]["stored_bytes"]
    assert isinstance(left, int)
    assert isinstance(stored, int)
    assert stored - left > 290_000
    assert home.run("repo", "check", "--read-data").returncode == 0
    assert home.lines("repo", "prune", "--max-unused", "0", "--yes")[-1]["pruned"] is False


def test_stats_count_what_lies_in_the_storage(home: Home) -> None:
    home.run("backup", "run")
    lines = home.lines("repo", "stats")
    amounts = {line["what"]: line for line in lines if line["message_type"] == "amount"}
    packs = list((home.repository / "data").glob("*/*"))
    assert amounts["pack"]["count"] == len(packs)
    assert amounts["pack"]["bytes"] == sum(pack.stat().st_size for pack in packs)
    assert amounts["snapshot"]["count"] == lines[-1]["snapshots"] == 1
    assert lines[-1]["backed_up_bytes"] == 10246


def test_stats_tell_what_each_snapshot_restores_to(home: Home) -> None:
    home.run("backup", "run")
    lines = home.lines("repo", "stats", "--content")
    sizes = [line for line in lines if line["message_type"] == "snapshot_size"]
    content = next(line for line in lines if line["message_type"] == "content")
    assert [line["restore_bytes"] for line in sizes] == [lines[-1]["backed_up_bytes"]]
    assert (content["unused_bytes"], content["duplicates"]) == (0, 0)
    assert "that no snapshot needs" in home.run("repo", "stats", "--content").stdout
