"""A sweep: one flow, a sample of its system calls, each made to fail in several ways.

Invariant: the seed decides on all points and is part of every report.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.faults.flows import Flow
from tests.faults.scene import Scene
from tests.faults.system_calls import CALLS, FAULTS, Point, find_points, run_with, sample
from tests.faults.verdict import judge


@dataclass
class Report:
    """What a sweep found. `missed`: points whose call never came."""

    seed: int
    calls: int
    points: int = 0
    missed: list[Point] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        head = (
            f"seed {self.seed}: {self.points} points of {self.calls} calls in {self.seconds:.0f} s, "
            f"{len(self.missed)} missed, {len(self.complaints)} complaints"
        )
        return "\n  ".join([head, *self.complaints])


def sweep(
    scene: Scene,
    flow: Flow,
    per_call: int,
    seed: int,
    *,
    program: Sequence[str] = ("drctl",),
    faults: Sequence[str] = FAULTS,
    calls: Sequence[str] = CALLS,
    most: int | None = None,
    enough: int | None = None,
) -> Report:
    """Up to `per_call` points for each call and fault, `most` in all; ends early with `enough` complaints."""
    began = time.monotonic()
    _lay_out(scene, flow)
    words = scene.words(*flow.words(scene), program=program)
    environment = scene.environment()
    prefixes = (scene.folder, scene.tree)
    found = [one for one in find_points(words, environment, scene.base, prefixes) if one[0] in calls]
    assert not (undone := flow.undone(scene)), f"the clean run does not do it: {undone}"
    dice = random.Random(seed)
    points = sample(found, dice, per_call, faults)
    if most is not None and len(points) > most:
        points = dice.sample(points, most)
    report = Report(seed, len(found))
    for point in points:
        _lay_out(scene, flow)
        outcome = run_with(point, words, environment, scene.base)
        report.points += 1
        if outcome.met is None:
            report.missed.append(point)
            continue
        report.complaints += [
            f"{flow.name}, {point}: {line} [exit {outcome.done.code}, {outcome.met[:160]}]"
            for line in judge(scene, flow, point, outcome)
        ]
        if enough is not None and len(report.complaints) >= enough:
            break
    report.seconds = time.monotonic() - began
    return report


def _lay_out(scene: Scene, flow: Flow) -> None:
    scene.reset()
    flow.prepare(scene)
