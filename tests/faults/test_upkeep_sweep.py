"""Every system call a prune's storage makes, failing and killing, one after the other (`make faults`)."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import restic
from tests.workflow.prune_faults import (
    CALLS,
    FAULTS,
    JUDGE,
    assert_finishes,
    assert_sound,
    prepare,
    prune_under_strace,
)
from tests.workflow.test_copy import create, start_copying
from tests.workflow.test_prune_faults import start_pruning
from tests.workflow.upkeep_cases import contents, copied, forget, make_repository, open_local

_MOST_CALLS = 40
_ROUNDS = 60


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("call", CALLS)
def test_no_system_call_of_a_prune_can_lose_anything(call: str, fault: str, tmp_path: Path) -> None:
    whole, expected = prepare(tmp_path)
    met = 0
    for when in range(1, _MOST_CALLS):
        directory = Path(shutil.copytree(whole, tmp_path / f"at-{when}"))
        code = prune_under_strace(directory, call, fault, when)
        met += code != 0
        assert_sound(directory)
        assert_finishes(directory, tmp_path, expected)
        shutil.rmtree(directory)
        if code == 0 and when > 4:
            break
    assert met, "no fault was met: this test proves nothing"


def test_many_kills_of_prune_and_copy_lose_nothing(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(10**6)
    moments = random.Random(seed)
    made = make_repository(tmp_path, restic.PROGRAMS[-1], megabytes=32)
    forget(open_local(made), 0)
    expected = contents(JUDGE, made, tmp_path)
    killed = 0
    for round_ in range(_ROUNDS):
        place = tmp_path / str(round_)
        place.mkdir()
        directory, target = copied(made, place), place / "target"
        create(target)
        for run in (start_copying(directory, target), start_pruning(directory)):
            try:
                run.wait(timeout=moments.uniform(0.3, 1.5))
            except subprocess.TimeoutExpired:
                run.kill()
                run.wait()
                killed += 1
        assert_sound(directory)
        assert_sound(target)
        assert_finishes(directory, place, expected)
        shutil.rmtree(place)
    assert killed > _ROUNDS / 4, f"hardly a run was killed (seed {seed})"
