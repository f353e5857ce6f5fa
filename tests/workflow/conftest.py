"""Fixtures of the workflow tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workflow.backups import Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """An empty repository and an empty directory."""
    made = Place(tmp_path / "repository", tmp_path / "data")
    made.data.mkdir()
    made.create()
    return made
