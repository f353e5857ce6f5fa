"""What the fault suites share. Their size is set by DRCTL_FAULT_POINTS, their seed by DRCTL_FAULT_SEED."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.scene import Scene, make_scene


@pytest.fixture(scope="session")
def scene() -> Iterator[Scene]:
    """Made once for a process; in memory where there is room, because a sweep waits for fsync mostly."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 2 * 2**30
    base = Path(tempfile.mkdtemp(prefix="drctl-faults-", dir=memory if roomy else None))
    try:
        yield make_scene(base)
    finally:
        shutil.rmtree(base)


@pytest.fixture(scope="session")
def seed() -> int:
    """Decides on everything random; part of every report."""
    return int(os.environ.get("DRCTL_FAULT_SEED") or random.SystemRandom().randrange(10**6))


@pytest.fixture(scope="session")
def per_call() -> int:
    """How many numbers of each system call and fault a sweep tries."""
    return int(os.environ.get("DRCTL_FAULT_POINTS") or 2)
