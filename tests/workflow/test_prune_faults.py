"""Prune under faults: whatever happens, stock restic finds every snapshot complete, and a rerun finishes."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import restic
from tests.workflow.prune_faults import (
    JUDGE,
    assert_finishes,
    assert_sound,
    die,
    fail,
    prepare,
    prune_honestly,
    prune_in_the_wrong_order,
    prune_under_strace,
    victim,
)
from tests.workflow.upkeep_cases import contents, copied, forget, make_repository, open_local, prune

_MOST_OPERATIONS = 60


@pytest.fixture
def prepared(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    return prepare(tmp_path)


@pytest.mark.parametrize("fault", [die, fail])
def test_a_prune_that_ends_at_any_operation_loses_nothing_and_is_finished_by_the_next(
    prepared: tuple[Path, dict[str, str]], tmp_path: Path, fault: Callable[[], None]
) -> None:
    whole, expected = prepared
    met = 0
    for at in range(1, _MOST_OPERATIONS):
        directory = Path(shutil.copytree(whole, tmp_path / f"at-{at}"))
        status = victim(directory, at, fault, prune_honestly)
        if status == 0:
            break
        met += status != 0
        assert_sound(directory)
        if at % 4 == 0:
            assert_finishes(directory, tmp_path, expected)
        else:
            prune(open_local(directory))
            assert_sound(directory)
    assert met > 8, "the faults were not met: this test proves nothing"


def test_the_judge_notices_a_prune_in_the_wrong_order(
    prepared: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    """The positive control of the sweep above."""
    whole, _ = prepared
    for at in range(1, _MOST_OPERATIONS):
        directory = Path(shutil.copytree(whole, tmp_path / f"at-{at}"))
        assert victim(directory, at, die, prune_in_the_wrong_order) != 0, "no kill made it unsound"
        if not _finds_it_clean(directory):
            return


def _finds_it_clean(directory: Path) -> bool:
    try:
        done = restic.try_to(JUDGE, directory, ["check", "--no-lock"], timeout_s=10)
    except subprocess.TimeoutExpired:
        return False  # restic tries for minutes to load a pack that is gone
    return done.returncode == 0


@pytest.mark.parametrize(
    ("call", "fault", "when"),
    [
        ("renameat2", "KILL", 2),
        ("renameat2", "ENOSPC", 1),
        ("fsync", "EIO", 2),
        ("fsync", "KILL", 5),
        ("unlink", "KILL", 1),
        ("unlink", "EIO", 2),
    ],
)
def test_a_system_call_that_fails_or_kills_loses_nothing(
    prepared: tuple[Path, dict[str, str]], tmp_path: Path, call: str, fault: str, when: int
) -> None:
    """A few points of the sweep that `make faults` does in full."""
    directory, expected = prepared
    assert prune_under_strace(directory, call, fault, when) != 0, "the fault was not met"
    assert_sound(directory)
    assert_finishes(directory, tmp_path, expected)


def test_kill_9_at_random_moments_loses_nothing(tmp_path: Path) -> None:
    directory = make_repository(tmp_path, restic.PROGRAMS[-1], megabytes=16)
    forget(open_local(directory), 0)
    expected = contents(JUDGE, directory, tmp_path)
    seed = random.SystemRandom().randrange(10**6)
    moments = random.Random(seed)
    began = time.monotonic()
    assert start_pruning(copied(directory, tmp_path)).wait() == 0
    whole_s = time.monotonic() - began
    killed = 0
    for _ in range(8):
        run = start_pruning(directory)
        try:
            # well before the end: the rehearsal may have met a busier machine
            run.wait(timeout=moments.uniform(0.1, 0.5) * whole_s)
            break
        except subprocess.TimeoutExpired:
            run.kill()
            run.wait()
            killed += 1
        assert_sound(directory)
    assert_finishes(directory, tmp_path, expected)
    assert killed, f"no run was killed (seed {seed}): this test proved nothing"


def start_pruning(directory: Path) -> subprocess.Popen[bytes]:
    """In a process of its own."""
    script = (
        "from pathlib import Path; from tests.workflow.prune_faults import prune_honestly;"
        f"prune_honestly(Path({str(directory)!r}))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen([sys.executable, "-c", script], env=environment, start_new_session=True)
