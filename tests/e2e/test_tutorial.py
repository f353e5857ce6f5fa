"""The tutorial is run as a newcomer would run it: every command, in its order, in an empty home."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.documents import ROOT, Session


def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    assert Session(tmp_path).run(ROOT / "docs/tutorial/first-backup.md") > 30
