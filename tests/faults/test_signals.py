"""SIGTERM and SIGINT at any moment: a clean stop, within bounds, that leaves nothing behind (safety 51)."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from drctl.errors import ExitCode
from tests.faults.flows import FLOWS, Flow, leftovers
from tests.faults.scene import Done, Scene
from tests.faults.system_calls import session_members
from tests.faults.test_full_disk import halves
from tests.faults.verdict import badly_told, damages

_BOUND_S = 20.0  # a machine under load; unloaded it takes well under a second
_ROUNDS = 4


def _start(scene: Scene, flow: Flow) -> subprocess.Popen[str]:
    return subprocess.Popen(
        scene.words(*flow.words(scene)),
        env=scene.environment(),
        cwd=scene.base,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _lasts(scene: Scene, flow: Flow) -> float:
    began = time.monotonic()
    process = _start(scene, flow)
    process.communicate()
    assert process.returncode == 0
    return time.monotonic() - began


def _stop(scene: Scene, flow: Flow, number: signal.Signals, after_s: float, whole_group: bool) -> Done | None:
    """What became of it; None when it had ended before."""
    process = _start(scene, flow)
    with suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=after_s)
        return None
    if whole_group:  # as a terminal does on Ctrl-C
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    out, err = process.communicate(timeout=_BOUND_S)
    assert session_members(process.pid) == [], "processes outlived it"
    return Done(process.returncode, out, err)


@pytest.mark.parametrize("whole_group", [False, True])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("name", ["backup", "restore", "delta-restore", "prune", "copy"])
def test_a_stopped_flow_ends_with_130_and_leaves_no_lock_no_process_and_no_half_file(
    scene: Scene, name: str, number: signal.Signals, whole_group: bool, seed: int
) -> None:
    flow = FLOWS[name]
    dice = random.Random(f"{seed} {name} {number} {whole_group}")
    scene.reset()
    flow.prepare(scene)
    whole_s = _lasts(scene, flow)
    states = (*scene.expected().values(),)
    stopped = 0
    for _ in range(_ROUNDS):
        scene.reset()
        flow.prepare(scene)
        done = _stop(scene, flow, number, dice.uniform(0.3, 1.0) * whole_s, whole_group)
        if done is None:
            continue
        if done.code == ExitCode.OK:  # the signal came after the work
            assert flow.undone(scene) == []
            continue
        told = f"seed {seed}: {done}"
        if done.code == -number and not done.err:
            continue  # before drctl had come to its handlers, when nothing was begun
        stopped += 1
        assert done.code == ExitCode.INTERRUPTED, told
        assert badly_told(done) == [], told
        assert leftovers(scene) == [], told
        assert os.listdir(scene.repository / "locks") == [], told
        assert os.listdir(scene.copy / "locks") == [], told
        assert damages(scene, flow) == [], told
        if name == "delta-restore":
            assert halves(Path(f"{scene.target}{scene.tree}"), (states[0], states[-1])) == [], told
        again = scene.run(*flow.retries(scene)[0])
        assert again.code == 0, f"{told} {again}"
        assert flow.undone(scene) == [], told
    shutil.rmtree(scene.target, ignore_errors=True)
    print(f"seed {seed}: {name}, {number.name}: {stopped} of {_ROUNDS} stopped in {whole_s:.1f} s")
    assert stopped, f"no run was stopped (seed {seed}): this test proved nothing"
