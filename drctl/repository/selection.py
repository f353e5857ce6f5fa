"""Which part of a snapshot is restored, and where it comes to lie below the target.

Paths lie below the target as they lie in the snapshot (`target/home/ann/x`), as restic has it;
`root` names a directory of the snapshot that becomes the target itself (restic's SNAPSHOT:PATH).
Invariant: excludes win over everything; a path that was asked for by name and is not in the
snapshot is an error, never a restore of nothing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from drctl.errors import UsageError

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec


@dataclass(frozen=True, slots=True)
class Selection:
    """`paths`: absolute paths of the snapshot, files or whole directories (none: everything below
    `root`). `include`, `exclude`: gitignore patterns with the snapshot's `/` as the place of the
    ignore file. `root`: absolute path of a directory, or of one file, which comes to lie in the
    target under its own name."""

    paths: tuple[bytes, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    root: bytes = b"/"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is done with one entry. `wanted`: it is restored; `descend`: something below it may be;
    `inside`: it and what is below satisfy `paths`; `included`: they satisfy `include`."""

    wanted: bool
    descend: bool
    inside: bool
    included: bool


LEFT_OUT = Verdict(wanted=False, descend=False, inside=False, included=False)


class Selector:
    """A compiled `Selection`, asked entry by entry on the way down."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self.root = _normalised(selection.root)
        self._paths = {_normalised(path) for path in selection.paths}
        outside = [path for path in self._paths if not _is_below(path, self.root)]
        if outside:
            raise UsageError(f"{os.fsdecode(outside[0])!r} is not below {os.fsdecode(self.root)!r}")
        self._above = {parent for path in self._paths for parent in _parents(path)}
        self._missing = set(self._paths)
        self._include = _compiled(selection.include)
        self._exclude = _compiled(selection.exclude)
        self.takes_all = not (self._paths or self._include or self._exclude)

    def of_one_file(self) -> Selector:
        """When the root turned out to be a file: the directory above it, with only that file."""
        selection = self._selection
        return Selector(replace(selection, root=os.path.dirname(self.root), paths=(self.root,)))

    def start(self) -> Verdict:
        """The verdict on the root itself."""
        self._missing.discard(self.root)
        inside = not self._paths or self.root in self._paths
        included = self._include is None
        return Verdict(wanted=inside and included, descend=True, inside=inside, included=included)

    def judge(self, path: bytes, above: Verdict, *, is_directory: bool) -> Verdict:
        """The verdict on an entry below a directory with the verdict `above`."""
        named = path in self._paths
        if named:
            self._missing.discard(path)
        inside = above.inside or named
        on_the_way = is_directory and path in self._above
        if not (inside or on_the_way) or _matches(self._exclude, path, is_directory):
            return LEFT_OUT
        included = above.included or _matches(self._include, path, is_directory)
        wanted = inside and included
        return Verdict(wanted, is_directory and (wanted or inside or on_the_way), inside, included)

    def selects(self, path: bytes, *, is_directory: bool) -> bool:
        """Whether `path`, relative to the root but beginning with `/`, is wanted, seen from above."""
        verdict, here = self.start(), self.root.rstrip(b"/")
        *above, name = path.strip(b"/").split(b"/")
        for part in above:
            here += b"/" + part
            verdict = self.judge(here, verdict, is_directory=True)
        return self.judge(here + b"/" + name, verdict, is_directory=is_directory).wanted

    def met(self) -> frozenset[bytes]:
        """The paths asked for by name that were met so far, to be told to the selector of another
        process."""
        return frozenset(self._paths - self._missing)

    def meet(self, paths: frozenset[bytes]) -> None:
        """Paths that were met elsewhere."""
        self._missing -= paths

    def check_all_found(self) -> None:
        """UsageError when a path that was asked for was not met."""
        if self._missing:
            missing = min(self._missing)
            raise UsageError(
                f"no {os.fsdecode(missing)!r} in the snapshot",
                hint="paths are absolute, as the snapshot has them",
            )


def _compiled(patterns: Sequence[str]) -> GitIgnoreSpec | None:
    if not patterns:
        return None
    from pathspec import GitIgnoreSpec  # only where patterns are given: 20 ms

    try:
        return GitIgnoreSpec.from_lines(patterns)
    except ValueError as exc:
        raise UsageError(f"not a pattern: {exc}") from exc


def _matches(spec: GitIgnoreSpec | None, path: bytes, is_directory: bool) -> bool:
    if spec is None:
        return False
    text = os.fsdecode(path).lstrip("/")
    return spec.match_file(text + "/" if is_directory else text)


def _normalised(path: bytes) -> bytes:
    if not path.startswith(b"/") or b"\0" in path:
        raise UsageError(f"not an absolute path: {os.fsdecode(path)!r}")
    return b"/" + os.path.normpath(path).lstrip(b"/")


def _parents(path: bytes) -> list[bytes]:
    parts = path.split(b"/")[1:-1]
    return [b"/", *(b"/" + b"/".join(parts[: count + 1]) for count in range(len(parts)))]


def _is_below(path: bytes, root: bytes) -> bool:
    return root in (path, b"/") or path.startswith(root + b"/")
