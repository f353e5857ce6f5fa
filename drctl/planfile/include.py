"""`include:` — one plan out of several files, each value keeping the file it stands in.

Invariant: only files below the main plan's own folder are read (symlinks resolved), each once, at
most 64 of them; a name defined in two files is an error, never silently the later one.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping

from drctl.planfile.errors import Position, Problems, quoted
from drctl.planfile.load import load, read_file
from drctl.planfile.nodes import Items, Node, Scalar, Table

MAX_FILES = 64
SECTIONS = ("sites", "hosts", "repositories", "services")


def load_with_includes(path: str, environment: Mapping[str, str], problems: Problems) -> Table | None:
    """The main plan with everything it includes merged in, without the `include` keys."""
    return _Gathering(path, environment, problems).gather()


class _Gathering:
    def __init__(self, path: str, environment: Mapping[str, str], problems: Problems) -> None:
        self._path = path
        self._folder = os.path.realpath(os.path.dirname(path) or ".")
        self._environment = environment
        self._problems = problems
        self._seen: dict[str, str] = {}

    def gather(self) -> Table | None:
        main = self._read(self._path)
        if main is None:
            return None
        entries = dict(main.entries)
        for included in self._included(main, self._path, (os.path.realpath(self._path),)):
            _merge(entries, included, self._problems)
        entries.pop("include", None)
        return Table(entries, main.at)

    def _read(self, path: str) -> Table | None:
        self._seen[os.path.realpath(path)] = path
        data = read_file(path, self._problems)
        return None if data is None else load(data, path, self._environment, self._problems)

    def _included(self, table: Table, path: str, chain: tuple[str, ...]) -> Iterator[Table]:
        for pattern, at in self._patterns(table.get("include")):
            for found in self._files(pattern, at, os.path.dirname(path)):
                real = os.path.realpath(found)
                if real in chain:
                    self._problems.add(
                        at, f"{quoted(pattern)} includes itself", "remove one of the two include lines"
                    )
                elif real in self._seen:
                    self._problems.add(
                        at, f"{quoted(found)} is included twice", "remove one of the two include lines"
                    )
                elif len(self._seen) >= MAX_FILES:
                    self._problems.add(at, f"more than {MAX_FILES} files")
                    return
                elif (read := self._read(found)) is not None:
                    yield read
                    yield from self._included(read, found, (*chain, real))

    def _patterns(self, node: Node | None) -> Iterator[tuple[str, Position]]:
        if node is None:
            return
        for item in node.items if isinstance(node, Items) else (node,):
            if isinstance(item, Scalar) and isinstance(item.value, str) and item.value:
                yield item.value, item.at
            else:
                self._problems.add(item.at, "not a file name", "write include: [services/*.yaml]")

    def _files(self, pattern: str, at: Position, folder: str) -> list[str]:
        if os.path.isabs(pattern) or ".." in pattern.split("/") or "\0" in pattern:
            self._problems.add(
                at,
                f"{quoted(pattern)} leaves the plan's folder",
                "include files by names relative to the file",
            )
            return []
        found = (
            sorted(glob.glob(os.path.join(glob.escape(folder), pattern)))
            if glob.has_magic(pattern)
            else [os.path.join(folder, pattern)]
        )
        if not found:
            self._problems.add(at, f"no file matches {quoted(pattern)}", "add one, or remove the line")
        return [name for name in found if self._inside(name, at)]

    def _inside(self, name: str, at: Position) -> bool:
        real = os.path.realpath(name)
        if os.path.commonpath([real, self._folder]) != self._folder:
            self._problems.add(at, f"{quoted(name)} leaves the plan's folder through a symbolic link")
            return False
        if not os.path.isfile(real):
            self._problems.add(
                at, f"no file {quoted(name)}", "names are relative to the file with the include: line"
            )
            return False
        return True


def _merge(entries: dict[str, tuple[Position, Node]], added: Table, problems: Problems) -> None:
    for key, (at, value) in added.entries.items():
        if key == "include":
            continue
        present = entries.get(key)
        if present is None:
            entries[key] = (at, value)
        elif key in SECTIONS and isinstance(present[1], Table) and isinstance(value, Table):
            entries[key] = (present[0], _joined(present[1], value, problems))
        else:
            problems.add(at, f"{quoted(key)} is already given at {present[0]}", "keep one of the two")


def _joined(first: Table, second: Table, problems: Problems) -> Table:
    entries = dict(first.entries)
    for name, (at, value) in second.entries.items():
        if name in entries:
            problems.add(
                at, f"{quoted(name)} is already defined at {entries[name][0]}", "rename one of the two"
            )
        else:
            entries[name] = (at, value)
    return Table(entries, first.at)
