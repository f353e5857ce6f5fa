"""Backups of command output and of raw images."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import pytest

from drctl.errors import SourceError
from drctl.sources.command import CommandOptions, CommandSource
from drctl.sources.image import ImageOptions, ImageSource
from tests.workflow.backups import Place, settle, stored_files


def _dump(*command: str) -> CommandSource:
    return CommandSource(CommandOptions(command=command, filename="shop/database.sql"))


def test_the_output_of_a_command_comes_back_as_a_file(place: Place, tmp_path: Path) -> None:
    script = "import sys; [sys.stdout.write(f'INSERT {n};' * 100) for n in range(20_000)]"
    place.back_up(_dump(sys.executable, "-c", script))
    place.restic().run("check", "--read-data")
    place.restic().run("restore", "latest", "--target", str(tmp_path / "out"))
    expected = "".join(f"INSERT {n};" * 100 for n in range(20_000))
    assert (tmp_path / "out/shop/database.sql").read_text() == expected


def test_the_same_dump_again_stores_next_to_nothing(place: Place) -> None:
    script = "import sys, random; sys.stdout.buffer.write(random.Random(1).randbytes(20_000_000))"
    first = place.back_up(_dump(sys.executable, "-c", script))
    second = place.back_up(_dump(sys.executable, "-c", script))
    assert first.counts.bytes_added > 20_000_000
    assert second.counts.bytes_added < 10_000


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("print('half a dump'); raise SystemExit(3)", "exit code 3"),
        ("pass", "empty"),
        ("import os; print('half'); os.kill(os.getpid(), 9)", "sigkill"),
    ],
)
def test_a_dump_that_is_not_complete_makes_no_snapshot(place: Place, script: str, reason: str) -> None:
    with pytest.raises(SourceError) as failed:
        place.back_up(_dump(sys.executable, "-c", script))
    assert reason.split(maxsplit=1)[0] in f"{failed.value.message} {failed.value.hint}".lower()
    assert place.open().snapshots() == []
    assert os.listdir(place.repository / "locks") == []


def test_an_image_comes_back_and_an_unchanged_one_stores_next_to_nothing(
    place: Place, tmp_path: Path
) -> None:
    image = place.data / "disk.img"
    content = random.Random(1).randbytes(30_000_000)
    with open(image, "wb") as file:
        file.write(content)
        file.truncate(2_000_000_000)  # the rest is a hole
        file.seek(1_500_000_000)
        file.write(b"far away")
    settle()
    source = ImageSource(ImageOptions(path=str(image)))
    first = place.back_up(source, full=True)
    before = sum(stored_files(place).values())
    second = place.back_up(source, full=True)
    assert first.counts.bytes == second.counts.bytes == 2_000_000_000
    assert sum(stored_files(place).values()) - before < 20_000
    restored = place.restored(tmp_path / "out") / "disk.img"
    assert os.path.getsize(restored) == 2_000_000_000
    with open(restored, "rb") as file:
        assert file.read(30_000_000) == content
        file.seek(1_500_000_000)
        assert file.read(8) == b"far away"


def test_a_change_in_an_image_stores_its_block_only(place: Place) -> None:
    image = place.data / "disk.img"
    image.write_bytes(random.Random(1).randbytes(40_000_000))
    source = ImageSource(ImageOptions(path=str(image)))
    place.back_up(source)
    with open(image, "r+b") as file:
        file.seek(20_000_000)
        file.write(b"changed")
    report = place.back_up(source)
    assert 0 < report.counts.bytes_added < 8_000_000
