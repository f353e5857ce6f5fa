"""What must hold after a fault, whatever it was: the judge of every fault suite.

Invariant: each complaint is one line; the judge itself writes nothing into the repositories before the
command is run again.
"""

from __future__ import annotations

import re
from pathlib import Path

from drctl.errors import DrctlError, ExitCode
from tests.faults.flows import Flow, leftovers, opens_always
from tests.faults.scene import Done, Scene
from tests.faults.system_calls import Outcome, Point

_MESSAGE = re.compile(r"(drctl|hint|warning|error): |  ")
_JUDGES = ("drctl", "restic")


def judge(scene: Scene, flow: Flow, point: Point, outcome: Outcome) -> list[str]:
    """All that is wrong after a flow met a fault, the rerun included; empty when nothing is."""
    found = []
    if outcome.hung:
        found.append("it hung")
    found += [f"process left: {line}" for line in outcome.left]
    if str(scene.base) in (outcome.met or ""):  # not in the middle of Python's own start
        found += badly_told(outcome.done) + [f"left in TMPDIR: {name}" for name in leftovers(scene)]
    found += _wrong_code(scene, flow, point, outcome.done)
    if found_now := damages(scene, flow):
        return found + found_now  # a rerun says nothing more
    return found + _after_rerun(scene, flow)


def badly_told(done: Done) -> list[str]:
    """What is wrong with the messages of a run that did not end well."""
    lines = [line for line in done.err.splitlines() if line]
    found = [f"told badly: {line}" for line in lines if not _MESSAGE.match(line)]
    found += [f"a defect: {line}" for line in lines if "defect" in line or "internal error" in line]
    if done.code > 0 and not lines:
        found.append(f"exit code {done.code} without a word")
    return found


def _wrong_code(scene: Scene, flow: Flow, point: Point, done: Done) -> list[str]:
    if done.code == ExitCode.OK:
        return [f"exit code 0, but {reason}" for reason in flow.undone(scene)]
    if (
        done.code == ExitCode.INCOMPLETE
        and "backup" in flow.name
        and scene.tree.name not in Path(point.path).parts
    ):
        return ["a fault of the repository was told as one of the source (exit code 3)"]
    if done.code == ExitCode.USAGE and "repository" in Path(point.path).parts:
        return ["a fault of the repository was told as one of the user (exit code 2)"]
    return []


def damages(scene: Scene, flow: Flow, judges: tuple[str, ...] = _JUDGES) -> list[str]:
    """What of the older snapshots does not restore, and what stock restic's check says."""
    found = opens_always(scene)
    if found:
        return found
    try:
        there = scene.snapshots()
        mirrored = scene.snapshots(scene.copy)
    except (DrctlError, OSError) as exc:
        return [f"the snapshots cannot be read: {exc}"]
    for number, (name, expected) in enumerate(scene.expected().items()):
        if name not in there:
            found += [f"snapshot {name[:8]} is gone"] if number not in flow.removes else []
            continue
        # stock restic restores the newest: three times two restores would be most of a sweep's time
        for by in judges[: 2 if number == len(scene.expected()) - 1 else 1]:
            found += scene.wrongly_restored(name, expected, scene.folder / "judged", by)
    for which, names in ((scene.repository, there), (scene.copy, mirrored)):
        if which == scene.copy and flow.name != "copy":
            continue
        done = scene.restic("check", "--no-lock", which=which)
        if done.code:
            found.append(f"restic check of {which.name} ({len(names)} snapshots): {_told(done)}")
    return found


def _after_rerun(scene: Scene, flow: Flow) -> list[str]:
    attempts = []
    for words in flow.retries(scene):
        done = scene.run(*words)
        if done.code == ExitCode.OK:
            break
        attempts.append(f"rerun of {words[0]} ends with {done.code}: {done.err.strip()}")
    else:
        return attempts
    found = [f"after the rerun: {reason}" for reason in flow.undone(scene)]
    scene.restic("unlock")  # a lock whose removal failed is stale: its process is gone
    locked = scene.restic("check")
    if locked.code:
        found.append(f"after the rerun, restic check: {_told(locked)}")
    return found + [f"after the rerun: {reason}" for reason in damages(scene, flow, ("drctl",))]


def _told(done: Done) -> str:
    return " | ".join((done.err.strip() or done.out.strip()).splitlines()[-4:])
