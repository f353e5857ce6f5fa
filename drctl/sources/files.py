"""A tree of local files as a source.

Invariant: every name below a root is an entry, excluded by the plan's own rules, or reported;
paths are absolute and normalised, and names are bytes throughout.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

from drctl.ports import Entry
from drctl.sources.anchor import Anchor
from drctl.sources.excludes import Excludes
from drctl.sources.local_directory import Listing, LocalDirectory, OwnerNames, list_entries, open_only
from drctl.sources.roots import check_absolute, split
from drctl.sources.rules import Rules


@dataclass(frozen=True, slots=True)
class FilesOptions:
    """What of the file system is backed up.

    paths: absolute paths of directories, files or symlinks (a symlink is stored as one, not
        followed). One inside another is backed up once.
    exclude: gitignore patterns; `/var/cache` (a slash at the start or inside) is an absolute path,
        `*.tmp` a name anywhere, `cache/` a directory anywhere, `!keep.tmp` takes one back. An
        excluded directory is not entered, so nothing inside it can be taken back.
    exclude_file: an absolute path of a file with more patterns, one per line, after `exclude`.
    exclude_caches: of a directory with a valid CACHEDIR.TAG keep the tag only.
    exclude_if_present: of a directory that holds a file of one of these names keep that file only.
    one_file_system: a mount point below a path is kept as an empty directory.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    paths: tuple[str, ...] = field(metadata={"description": "absolute paths to back up"})
    exclude: tuple[str, ...] = field(
        default=(), metadata={"description": "gitignore patterns; anchored ones are absolute paths"}
    )
    exclude_file: str | None = field(
        default=None, metadata={"description": "absolute path of a file with one pattern per line"}
    )
    exclude_caches: bool = field(
        default=False, metadata={"description": "leave out directories with a valid CACHEDIR.TAG"}
    )
    exclude_if_present: tuple[str, ...] = field(
        default=(), metadata={"description": "leave out directories that hold one of these names"}
    )
    one_file_system: bool = field(default=False, metadata={"description": "do not cross mount points"})

    def __post_init__(self) -> None:
        """ValueError: the plan's reader adds file and line."""
        if not self.paths:
            raise ValueError("no path to back up")
        for path in self.paths:
            check_absolute(path)
        if self.exclude_file is not None:
            check_absolute(self.exclude_file)
        for name in self.exclude_if_present:
            if "/" in name or name in ("", ".", ".."):
                raise ValueError(f"exclude_if_present takes file names, not {name!r}")
        Excludes(self.exclude)


class FilesSource:
    """Implements `ports.TreeSource` on the machine drctl runs on."""

    Options = FilesOptions
    block_size: int | None = None
    trusts_metadata = True

    def __init__(self, options: FilesOptions) -> None:
        """UsageError when `exclude_file` cannot be used or a path is named and excluded at once."""
        self._rules = Rules(options)
        self.roots = self._rules.roots
        self._anchors: dict[bytes, Anchor] = {}
        self._owner_names: OwnerNames = {}

    def __getstate__(self) -> dict[str, Any]:
        # descriptors do not travel; a copy in another process opens its own
        return self.__dict__ | {"_anchors": {}, "_owner_names": {}}

    def open_directory(self, path: bytes) -> LocalDirectory:
        parent, name = split(self._rules.root_of(path))
        relative = path[len(parent.rstrip(b"/")) + 1 :] or name
        descriptor = self._anchor(parent).open_directory(relative)
        return LocalDirectory(descriptor, lambda: self._list(descriptor, path), self._owner_names)

    def open_root(self, path: bytes) -> LocalDirectory:
        """The directory that holds `path`, with that one entry. Above the roots, symlinks are
        followed: there the entry is the directory that holds a root, by whatever way. "/" is held
        by itself, under the name "."."""
        return open_only(path, self._owner_names, follow=path not in self.roots)

    def close(self) -> None:
        while self._anchors:
            self._anchors.popitem()[1].close()

    def _anchor(self, parent: bytes) -> Anchor:
        anchor = self._anchors.get(parent)
        if anchor is None:
            made = Anchor(parent)
            # a lock would not survive a fork; of two threads here at once, one gives way
            anchor = self._anchors.setdefault(parent, made)
            if anchor is not made:
                made.close()
        return anchor

    def _list(self, descriptor: int, path: bytes) -> Listing:
        if self._rules.take_nothing_away:
            return list_entries(descriptor)
        if self._rules.one_file_system and self._crosses(descriptor, path):
            return [], []
        return self._rules.keep(path, list_entries(descriptor), partial(_begins_with, descriptor))

    def _crosses(self, descriptor: int, path: bytes) -> bool:
        """Whether a mount point lies between the directory and the named path it belongs to.
        (Only directories are asked: an overlay shows files with devices of their own.)"""
        nearest = self._rules.nearest_named(path)
        return nearest != path and os.fstat(descriptor).st_dev != os.lstat(nearest).st_dev


def _begins_with(directory: int, entry: Entry, signature: bytes) -> bool:
    if entry.mode & 0o170000 != 0o100000:
        return False
    try:
        descriptor = os.open(
            entry.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory
        )
    except OSError:
        return False
    try:
        return os.pread(descriptor, len(signature), 0) == signature
    except OSError:
        return False
    finally:
        os.close(descriptor)
