"""The flows that are swept: what is run, and when it counts as done.

Invariant: a flow's `undone` asks the repository and the target, never what the command said.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from drctl.errors import DrctlError, WrongKeyError
from tests.compare import differences
from tests.faults.scene import KEY, SECOND_KEY, THIRD_KEY, Scene


@dataclass(frozen=True)
class Flow:
    """`words` of a scene are the command; `undone` lists what is missing for it to be complete."""

    name: str
    words: Callable[[Scene], tuple[str, ...]]
    undone: Callable[[Scene], list[str]]
    prepare: Callable[[Scene], None] = lambda scene: None
    # how a user goes on after a failure: the first of these that ends with 0
    again: Callable[[Scene], list[tuple[str, ...]]] | None = None
    # snapshots, counted from the oldest, that the flow is to remove from `main`
    removes: tuple[int, ...] = ()

    def retries(self, scene: Scene) -> list[tuple[str, ...]]:
        """The commands that bring it to its end, to be tried in order."""
        return self.again(scene) if self.again else [self.words(scene)]


def _new_snapshots(scene: Scene) -> list[str]:
    """Complete ones: a partial one says itself that something of the source could not be read."""
    expected = scene.expected()
    return [name for name, one in scene.snapshots().items() if name not in expected and one.is_complete]


def _not_backed_up(scene: Scene) -> list[str]:
    new = _new_snapshots(scene)
    if not new:
        return ["no new snapshot"]
    return [
        wrong
        for name in new
        for wrong in scene.wrongly_restored(name, scene.tree, scene.folder / "judged", "drctl")
    ]


def _empty_main(scene: Scene) -> None:
    for kind in ("data", "index", "snapshots"):
        shutil.rmtree(scene.repository / kind)


def _not_restored(scene: Scene) -> list[str]:
    (expected,) = list(scene.expected().values())[-1:]
    restored = Path(f"{scene.target}{scene.tree}")
    if not restored.is_dir():
        return ["nothing was restored"]
    return differences(expected, restored)


def _older_target(scene: Scene) -> None:
    (older,) = list(scene.expected().values())[:1]
    below = Path(f"{scene.target}{scene.tree}")
    below.parent.mkdir(parents=True)
    shutil.copytree(older, below, symlinks=True)


def _not_forgotten(scene: Scene) -> list[str]:
    names = list(scene.expected())
    there = set(scene.snapshots())
    return [f"{names[0][:8]} is still there"] if there != set(names[1:]) else []


def _forget_oldest(scene: Scene) -> None:
    (scene.repository / "snapshots" / next(iter(scene.expected()))).unlink()


def _not_pruned(scene: Scene) -> list[str]:
    """No blob is left that no snapshot needs: asked of stock restic's own prune."""
    done = scene.restic("--no-lock", "prune", "--dry-run", "--max-unused", "0")
    wanted = [line for line in done.out.splitlines() if line.startswith(("to delete:", "total prune:"))]
    if done.code or not wanted:
        return [f"restic cannot plan a prune: {done.err} {done.out}"]
    return [line for line in wanted if " 0 blobs" not in line]


def _not_copied(scene: Scene) -> list[str]:
    check = scene.restic("--no-lock", "check", "--read-data", which=scene.copy)
    here, there = scene.snapshots(), scene.snapshots(scene.copy)
    missing = {one.tree for one in here.values()} - {one.tree for one in there.values()}
    return [f"{len(missing)} snapshots are not copied"] * bool(missing) + [check.err] * bool(check.code)


def _opens(scene: Scene, key: str) -> bool:
    try:
        scene.open(key=key)
    except WrongKeyError:
        return False
    return True


def _key_not_added(scene: Scene) -> list[str]:
    return [] if _opens(scene, THIRD_KEY) else ["the new key does not open it"]


def _key_not_removed(scene: Scene) -> list[str]:
    return ["the removed key still opens it"] if _opens(scene, SECOND_KEY) else []


def _remove_words(scene: Scene) -> tuple[str, ...]:
    identifier = scene.open(scene.base / "template" / "repository", SECOND_KEY).key_id.hex()
    return ("repo", "key", "remove", identifier, "-r", "main", "--yes")


def _not_made(scene: Scene) -> list[str]:
    home = scene.folder / "new"
    for name in ("drctl.yaml", "repository.key", "repository/config"):
        if not (home / name).is_file():
            return [f"{name} is not there"]
    key = (home / "repository.key").read_text().strip()
    done = scene.restic("--no-lock", "check", which=home / "repository", key=key)
    return [done.err] if done.code else []


def _init_words(scene: Scene) -> tuple[str, ...]:
    return ("init", str(scene.folder / "new"), "--path", str(scene.tree))


def _init_again(scene: Scene) -> list[tuple[str, ...]]:
    plan = ("--plan", str(scene.folder / "new" / "drctl.yaml"))
    if not _not_made(scene):
        return [(*plan, "repo", "check")]  # init itself refuses what is there
    return [_init_words(scene), (*plan, "repo", "init"), (*plan, "repo", "init", "--generate-key")]


def _restore_words(scene: Scene) -> tuple[str, ...]:
    return ("restore", list(scene.expected())[-1], "--target", str(scene.target), "-r", "main")


FLOWS = {
    flow.name: flow
    for flow in (
        Flow("backup", lambda scene: ("backup", "run"), _not_backed_up),
        Flow(
            "first-backup",
            lambda scene: ("backup", "run", "--full"),
            _not_backed_up,
            _empty_main,
            removes=(0, 1, 2),
        ),
        Flow(
            "restore",
            _restore_words,
            _not_restored,
            again=lambda scene: [(*_restore_words(scene), "--delta", "--delete", "--yes")],
        ),
        Flow(
            "delta-restore",
            lambda scene: (*_restore_words(scene), "--delta", "--delete", "--yes"),
            _not_restored,
            _older_target,
        ),
        Flow(
            "forget",
            lambda scene: ("retention", "apply", "-r", "main", "--yes"),
            _not_forgotten,
            removes=(0,),
        ),
        Flow(
            "prune",
            lambda scene: ("repo", "prune", "main", "--max-unused", "0", "--yes"),
            _not_pruned,
            _forget_oldest,
            removes=(0,),
        ),
        Flow("copy", lambda scene: ("repo", "copy", "--from", "main", "--to", "copy"), _not_copied),
        Flow(
            "key-add",
            lambda scene: ("repo", "key", "add", str(scene.folder / "third.key"), "-r", "main"),
            _key_not_added,
        ),
        Flow(
            "key-remove",
            _remove_words,
            _key_not_removed,
            again=lambda scene: [_remove_words(scene), ("repo", "key", "list", "-r", "main")],
        ),
        Flow("init", _init_words, _not_made, again=_init_again),
    )
}


def opens_always(scene: Scene) -> list[str]:
    """The main key opens the repository, whatever happened."""
    try:
        scene.open(key=KEY)
    except (DrctlError, OSError) as exc:
        return [f"the main key does not open the repository: {exc}"]
    return []


def leftovers(scene: Scene) -> list[str]:
    """Names in the scene's temporary folder that a command left there."""
    return os.listdir(scene.folder / "tmp")
