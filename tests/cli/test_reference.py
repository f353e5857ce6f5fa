"""The committed reference says what the commands say."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from drctl.cli import reference
from drctl.cli.tree import COMMANDS
from tests.cli.conftest import ROOT

PAGES = ROOT / "docs" / "reference"


RENDERINGS = [("commands.md", reference.markdown), ("drctl.1", reference.man_page)]


@pytest.mark.parametrize(("name", "render"), RENDERINGS)
def test_the_committed_page_is_what_the_commands_say_now(name: str, render: object) -> None:
    assert callable(render)
    assert (PAGES / name).read_text() == render(reference.sections()), "stale: run `make docs` and commit"


def test_every_command_has_its_section_with_its_options_and_none_of_the_common_ones() -> None:
    sections = {section.words: section for section in reference.sections()}
    assert set(sections) == {leaf.words for leaf in COMMANDS}
    for section in sections.values():
        assert section.usage.startswith(f"drctl {section.words} ")
        assert not [row for row in section.options if row[0].startswith(("--output", "-p, --plan"))]


def test_the_man_page_is_valid_roff() -> None:
    if shutil.which("groff") is None:
        pytest.fail("groff is missing: tests/debian-packages.txt lists groff-base")
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-P-c", "-P-b", "-P-u", "-ww", str(PAGES / "drctl.1")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert "EXIT STATUS" in done.stdout
