"""YAML values that know where they stand.

Invariant: every key and value of a file keeps its own position, whatever is merged into what.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from drctl.planfile.errors import Position

Plain: TypeAlias = "str | int | float | bool | list[Plain] | dict[str, Plain]"


@dataclass(frozen=True, slots=True)
class Scalar:
    """One word, text or number. `text` is what stands in the file, before interpolation, so that
    messages can show it without showing what the environment holds."""

    value: str | int | float | bool
    text: str
    at: Position
    empty: bool = False  # a key with nothing behind it
    interpolated: bool = False


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    items: tuple[Node, ...]
    at: Position


@dataclass(frozen=True, slots=True)
class Table:
    """A mapping; keys are text and stand in it once."""

    entries: dict[str, tuple[Position, Node]]
    at: Position

    def key_at(self, key: str) -> Position:
        """Where the key stands; the mapping's own position when it is absent."""
        return self.entries[key][0] if key in self.entries else self.at

    def get(self, key: str) -> Node | None:
        """The value under a key."""
        return self.entries[key][1] if key in self.entries else None


Node: TypeAlias = Scalar | Items | Table


def plain(node: Node) -> Plain:
    """The value without positions. A key with nothing behind it becomes an empty mapping: right for
    a section, and wrong with a message for everything else."""
    match node:
        case Scalar(empty=True):
            return {}
        case Scalar():
            return node.value
        case Items():
            return [plain(item) for item in node.items]
        case Table():
            return {key: plain(value) for key, (_, value) in node.entries.items()}


def tables(node: Node | None) -> Iterator[tuple[str, Position, Table]]:
    """The entries of a section that are mappings themselves; an empty one counts as one."""
    if isinstance(node, Table):
        for key, (at, value) in node.entries.items():
            if isinstance(value, Table):
                yield key, at, value
            elif isinstance(value, Scalar) and value.empty:
                yield key, at, Table({}, value.at)


def texts(node: Node | None) -> Iterator[tuple[str, Position]]:
    """The text of a scalar, or of each scalar in a list."""
    if isinstance(node, Scalar) and isinstance(node.value, str) and not node.empty:
        yield node.value, node.at
    elif isinstance(node, Items):
        for item in node.items:
            if isinstance(item, Scalar):
                yield from texts(item)
