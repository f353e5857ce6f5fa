"""The trees that are measured, made from a seed.

Invariant: the same scale and seed give the same tree (`usr`, a part of this machine's /usr/share,
is the same within a run only), with times long past, so that no tool distrusts them.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

MIB = 2**20
_PAGE = 8192
_LONG_AGO_NS = 1_700_000_000 * 10**9
_WORDS = b"GET POST /index.html /api/v1/orders 200 404 500 timeout worker session cache miss hit".split()


class TreeMaker:
    """Makes one tree; every random choice comes from its seed."""

    def __init__(self, base: Path, scale: float, seed: int = 20261122) -> None:
        self._base = base
        self._scale = scale
        self._random = random.Random(seed)
        self._text = self._log_lines(50_000)

    def small(self) -> None:
        """100,000 files of 0.5 to 8 KiB in 2,000 directories."""
        self._small_files("small", round(100_000 * self._scale))

    def large(self) -> None:
        """A log of 1 GB, random bytes of 400 MB, database pages of 600 MB."""
        self._write("large/app.log", self._log(1000))
        self._write("large/video.bin", self._noise(400))
        self._write("large/table.db", self._pages(600))

    def mixed(self) -> None:
        """About 3 GB: logs, a part of /usr/share, random bytes, a database's directory, small files."""
        for number in range(8):
            self._write(f"mixed/log/app.{number}.log", self._log(100))
        self._write("mixed/media/film.bin", self._noise(500))
        for number in range(30):
            self._write(f"mixed/postgres/base/16384/{16_400 + number}", self._pages(20))
        for number in range(4):
            self._write(f"mixed/postgres/pg_wal/{number:024X}", self._pages(16))
        self._usr("mixed/usr", round(700 * MIB * self._scale))
        self._small_files("mixed/small", round(20_000 * self._scale))

    def _small_files(self, name: str, count: int) -> None:
        for first in range(0, count, 50):
            directory = self._base / name / f"{first // 2500:03d}" / f"{first // 50:05d}"
            directory.mkdir(parents=True)
            for number in range(first, min(first + 50, count)):
                length = self._random.randint(512, 8192)
                start = self._random.randrange(len(self._text) - length)
                noise = self._random.randbytes(length // 3)
                _put(directory / f"f{number}", [b"%d\n" % number, self._text[start : start + length], noise])

    def _write(self, name: str, parts: Iterator[bytes]) -> None:
        path = self._base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        _put(path, parts)

    def _mebibytes(self, size: float) -> range:
        return range(max(1, round(size * self._scale)))

    def _log_lines(self, count: int) -> bytes:
        pick, number = self._random.choices, self._random.getrandbits
        lines = (
            b"2026-11-22T01:%02d:%02d %08x %s\n"
            % (n // 60 % 60, n % 60, number(32), b" ".join(pick(_WORDS, k=6)))
            for n in range(count)
        )
        return b"".join(lines)

    def _log(self, size: float) -> Iterator[bytes]:
        lines = self._text.splitlines(keepends=True)
        for _ in self._mebibytes(size):
            yield b"".join(self._random.choices(lines, k=MIB // 62))

    def _noise(self, size: float) -> Iterator[bytes]:
        for _ in self._mebibytes(size):
            yield self._random.randbytes(MIB)

    def _pages(self, size: float) -> Iterator[bytes]:
        """Pages with a header, rows at their end, and zeros between; every fourth is empty."""
        for mebibyte in self._mebibytes(size):
            pages = []
            for page in range(MIB // _PAGE):
                used = 0 if page % 4 == 3 else self._random.randint(1000, 7000)
                start = self._random.randrange(len(self._text) - _PAGE)
                row = self._random.randbytes(used // 4) + self._text[start : start + used - used // 4]
                pages.append(b"%12d%12d" % (mebibyte, page) + bytes(_PAGE - 24 - used) + row)
            yield b"".join(pages)

    def _usr(self, name: str, budget: int) -> None:
        for directory, names, files in os.walk("/usr/share"):
            names.sort()
            target = self._base / name / os.path.relpath(directory, "/usr/share")
            target.mkdir(parents=True, exist_ok=True)
            for file in sorted(files):
                source = Path(directory, file)
                if source.is_file() and not source.is_symlink():
                    shutil.copyfile(source, target / file)
                    os.utime(target / file, ns=(_LONG_AGO_NS, _LONG_AGO_NS))
                    budget -= source.stat().st_size
            if budget < 0:
                return


def _put(path: Path, parts: Iterator[bytes] | list[bytes]) -> None:
    with path.open("wb") as file:
        file.writelines(parts)
    os.utime(path, ns=(_LONG_AGO_NS, _LONG_AGO_NS))


TREES: dict[str, Callable[[TreeMaker], None]] = {
    "small": TreeMaker.small,
    "large": TreeMaker.large,
    "mixed": TreeMaker.mixed,
}


def change(tree: Path, round_number: int) -> None:
    """A day's changes: of a hundred files one is edited, of five hundred one goes and one comes;
    large files are overwritten in ten places and grow at the end."""
    chosen = random.Random(round_number)
    files = sorted(path for path in tree.rglob("*") if path.is_file() and path.parent.name != "new")
    for path in files:
        size, dice = path.stat().st_size, chosen.random()
        if size > 4 * MIB:
            with path.open("r+b") as file:
                for _ in range(10):
                    file.seek(chosen.randrange(size - _PAGE))
                    file.write(chosen.randbytes(_PAGE))
                file.seek(0, os.SEEK_END)
                file.write(chosen.randbytes(_PAGE * 16))
        elif dice < 0.002:
            path.unlink()
        elif dice < 0.012:
            with path.open("ab") as file:
                file.write(b"edited %d\n" % round_number)
        elif dice < 0.014:
            added = path.parent / f"added {round_number} {path.name}"
            added.write_bytes(chosen.randbytes(2000))
