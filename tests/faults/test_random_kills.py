"""Several programs on one repository, killed at any moment: a model says what must restore (safety 2)."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from drctl.errors import DrctlError, ExitCode
from tests.compare import differences
from tests.faults.scene import KEY, Scene, make_scene
from tests.faults.system_calls import session_members
from tests.restics import restic_programs

_SECONDS = float(os.environ.get("DRCTL_FAULT_SECONDS") or 60)
_WRITERS = 2
Program = tuple[str, ...]


@dataclass
class _Model:
    """Which snapshots must restore: what was acknowledged, and that nobody was asked to forget."""

    guard: threading.Lock = field(default_factory=threading.Lock)
    kept: dict[str, Path] = field(default_factory=dict)
    runs: int = 0
    killed: int = 0
    codes: dict[str, int] = field(default_factory=dict)

    def note(self, what: str, code: int) -> None:
        """One run has ended."""
        with self.guard:
            self.runs += 1
            self.killed += code == -signal.SIGKILL
            name = f"{what} {code}"
            self.codes[name] = self.codes.get(name, 0) + 1


@pytest.fixture
def place() -> Iterator[Scene]:
    """A scene that these tests may wear out."""
    with tempfile.TemporaryDirectory(prefix="drctl-kills-") as base:
        yield make_scene(Path(base) / "scene", large=False)


def _run(
    scene: Scene, words: list[str], dice: random.Random, environment: dict[str, str], problems: list[str]
) -> tuple[int, str]:
    """Run it, and kill it (the main process only) at some moment, two times out of three."""
    process = subprocess.Popen(
        words,
        env=environment,
        cwd=scene.base,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=dice.uniform(0.2, 2.5) if dice.random() < 0.66 else 120)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
    if "Traceback" in err or "defect" in err or "internal error" in err:
        problems.append(f"{words[3:]}: {err}")
    end = time.monotonic() + 10
    while (left := session_members(process.pid)) and time.monotonic() < end:
        time.sleep(0.02)
    for line in left:
        problems.append(f"process left: {line}")
        with suppress(ProcessLookupError):
            os.kill(int(line.split(":")[0]), signal.SIGKILL)
    return process.returncode, out


def _writer(
    scene: Scene,
    model: _Model,
    dice: random.Random,
    end: float,
    program: tuple[str, ...],
    problems: list[str],
) -> None:
    """Backups by drctl and by stock restics in turns, forgetting, pruning."""
    restics = restic_programs()
    while time.monotonic() < end:
        match dice.choice(["backup", "backup", "restic", "forget", "prune"]):
            case "backup":
                _drctl_backup(scene, model, dice, program, problems)
            case "restic":
                tree = _private_tree(scene, dice)
                words = _restic_words(scene, dice.choice(restics), "backup", "--json", ".")
                words = ["env", "-C", str(tree), *words]
                code, out = _run(scene, words, dice, _restic_environment(scene), problems)
                model.note("restic", code)
                if code == 0:
                    with model.guard:
                        model.kept[json.loads(out.splitlines()[-1])["snapshot_id"]] = tree
            case "forget":
                with model.guard:
                    name = dice.choice([*model.kept]) if len(model.kept) > 3 else None
                    if name is not None:
                        model.kept.pop(name)  # whether or not it comes to pass
                if name is not None:
                    words = _restic_words(scene, restics[-1], "forget", name)
                    model.note("forget", _run(scene, words, dice, _restic_environment(scene), problems)[0])
            case "prune":
                words = scene.words("repo", "prune", "main", "--max-unused", "0", "--yes", program=program)
                code, _ = _run(scene, words, dice, scene.environment(), problems)
                model.note("prune", code)
                if code == ExitCode.LOCKED:  # a restic's, perhaps: only a person says that it is dead
                    scene.run("repo", "unlock", "main", "--yes")


def _drctl_backup(
    scene: Scene, model: _Model, dice: random.Random, program: tuple[str, ...], problems: list[str]
) -> None:
    words = scene.words("backup", "run", "--output", "json", program=program)
    code, out = _run(scene, words, dice, scene.environment(), problems)
    model.note("backup", code)
    for line in out.splitlines():
        with suppress(json.JSONDecodeError):  # cut by the kill
            said = json.loads(line)
            if said["message_type"] == "backup":
                with model.guard:
                    model.kept[said["id"]] = scene.tree


def _restic_words(scene: Scene, program: str, *words: str) -> list[str]:
    return [program, "--no-cache", "-r", str(scene.repository), *words]


def _restic_environment(scene: Scene) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "RESTIC_PASSWORD": KEY, "HOME": str(scene.folder)}


def _private_tree(scene: Scene, dice: random.Random) -> Path:
    tree = scene.base / "private" / f"{dice.randrange(10**12)}"
    tree.mkdir(parents=True)
    for name in range(5):
        (tree / f"file{name}").write_bytes(dice.randbytes(dice.randrange(80_000)))
    return tree


def _rounds(scene: Scene, seed: int, seconds: float, program: tuple[str, ...]) -> tuple[_Model, list[str]]:
    model = _Model(kept={name: tree for name, tree in scene.expected().items() if name in scene.snapshots()})
    problems: list[str] = []
    end = time.monotonic() + seconds
    threads = [
        threading.Thread(
            target=_writer, args=(scene, model, random.Random(f"{seed} {number}"), end, program, problems)
        )
        for number in range(_WRITERS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return model, problems


def _wrong(scene: Scene, model: _Model) -> list[str]:
    """What does not hold: the kept snapshots restore, the next run is not in the way of a dead lock."""
    unlocked = scene.run("repo", "unlock", "main", "--yes")
    found = [f"unlock ends with {unlocked.code}: {unlocked.err}"] if unlocked.code else []
    again = scene.run("backup", "run")
    found += [f"the next backup ends with {again.code}: {again.err}"] if again.code else []
    again = scene.run("repo", "prune", "main", "--max-unused", "0", "--yes")
    found += [f"the next prune ends with {again.code}: {again.err}"] if again.code else []
    scene.restic("unlock")
    check = scene.restic("check", "--read-data")
    found += [f"restic check: {check.err[-600:]}"] if check.code else []
    there = scene.snapshots()
    for name, tree in model.kept.items():
        if not any(one.startswith(name) for one in there):  # Debian's restic tells the short id only
            found.append(f"snapshot {name[:8]} was acknowledged and is gone")
        elif tree.parent.name == "private":
            found += _private_differences(scene, name, tree)
        else:
            found += scene.wrongly_restored(name, tree, scene.folder / "judged", "drctl")
    return found


def _private_differences(scene: Scene, name: str, tree: Path) -> list[str]:
    out = scene.folder / "judged"
    try:
        done = scene.restic("restore", name, "--target", str(out))
        return [f"restic restore {name[:8]}: {done.err}"] if done.code else differences(tree, out)
    finally:
        shutil.rmtree(out, ignore_errors=True)


def test_random_kills_of_several_programs_lose_nothing_that_was_acknowledged(place: Scene, seed: int) -> None:
    model, problems = _rounds(place, seed, _SECONDS, ("drctl",))
    told = f"seed {seed}: {model.runs} runs, {model.killed} killed, {len(model.kept)} kept, {model.codes}"
    print(told)
    assert problems == [], told
    assert _wrong(place, model) == [], told
    assert model.killed > 2, f"too few kills: this proved nothing; {told}"


def test_random_kills_find_a_storage_that_is_not_atomic(place: Scene, seed: int) -> None:
    """Torn files of the control show within a few times the time of a round."""
    for attempt in range(4):
        model, _ = _rounds(place, seed + attempt, _SECONDS / 2, ("tests.faults.broken", "torn-slowly"))
        try:
            wrong = _wrong(place, model)
        except (DrctlError, OSError) as exc:
            wrong = [repr(exc)]
        if wrong:
            print(f"seed {seed}: found after {attempt + 1} rounds: {wrong[:2]}")
            return
    pytest.fail(f"the control passed, seed {seed}")
