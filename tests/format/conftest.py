"""Fixtures of the format tests."""

from __future__ import annotations

import os

import pytest

from tests.format.stock_restic import restics


@pytest.fixture(params=restics(), ids=os.path.basename)
def restic_binary(request: pytest.FixtureRequest) -> str:
    """Every stock restic there is."""
    return str(request.param)
