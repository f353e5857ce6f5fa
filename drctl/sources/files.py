"""A tree of local files as a source.

Invariant: every name below a root is an entry, excluded by the plan's own rules, or reported;
paths are absolute and normalised, and names are bytes throughout.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from typing import Any, ClassVar

from drctl.errors import UsageError
from drctl.ports import Entry
from drctl.sources.anchor import Anchor
from drctl.sources.excludes import Excludes
from drctl.sources.local_directory import Listing, LocalDirectory, OwnerNames, list_entries, open_only
from drctl.sources.roots import check_absolute, contains, normalise_roots, split

CACHE_TAG = b"CACHEDIR.TAG"
# https://bford.info/cachedir/: a regular file that begins with these bytes
_CACHE_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"


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
        self.options = options
        self._named, self.roots = normalise_roots(options.paths)
        self._excludes = Excludes([*options.exclude, *_patterns_in(options.exclude_file)])
        self._refuse_contradictions()
        self._tags = dict.fromkeys(map(os.fsencode, options.exclude_if_present), b"")
        if options.exclude_caches:
            self._tags.setdefault(CACHE_TAG, _CACHE_SIGNATURE)
        self._plain = not (self._excludes or self._tags or options.one_file_system)
        self._anchors: dict[bytes, Anchor] = {}
        self._owner_names: OwnerNames = {}

    def __getstate__(self) -> dict[str, Any]:
        # descriptors do not travel; a copy in another process opens its own
        return self.__dict__ | {"_anchors": {}, "_owner_names": {}}

    def open_directory(self, path: bytes) -> LocalDirectory:
        root = next((root for root in self.roots if contains(root, path)), None)
        if root is None:
            raise ValueError(f"{path!r} is in no root")
        parent, name = split(root)
        relative = path[len(parent.rstrip(b"/")) + 1 :] or name
        descriptor = self._anchor(parent).open_directory(relative)
        return LocalDirectory(descriptor, lambda: self._list(descriptor, path), self._owner_names)

    def _list(self, descriptor: int, path: bytes) -> Listing:
        listing = list_entries(descriptor)
        return listing if self._plain else self._apply_rules(descriptor, path, listing)

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

    def _apply_rules(self, descriptor: int, path: bytes, listing: Listing) -> Listing:
        entries, unreadable = listing
        if self.options.one_file_system and self._crosses(descriptor, path):
            return [], []
        for entry in entries:
            if entry.name in self._tags and _begins_with(descriptor, entry, self._tags[entry.name]):
                return [entry], []
        if self._excludes:
            entries = self._excludes.keep(path, entries)
            unreadable = [
                (name, why)
                for name, why in unreadable
                if not self._excludes.leaves_out(path + b"/" + name, is_directory=False)
            ]
        return entries, unreadable

    def _crosses(self, descriptor: int, path: bytes) -> bool:
        """Whether a mount point lies between the directory and the named path it belongs to.
        (Only directories are asked: an overlay shows files with devices of their own.)"""
        nearest = max((named for named in self._named if contains(named, path)), key=len)
        return nearest != path and os.fstat(descriptor).st_dev != os.lstat(nearest).st_dev

    def _refuse_contradictions(self) -> None:
        for named in self._named:
            root = next(root for root in self.roots if contains(root, named))
            if self._is_left_out_below(root, named):
                raise UsageError(
                    f"{os.fsdecode(named)!r} is named in paths, and excluded inside {os.fsdecode(root)!r}",
                    hint="take each directory on the way back with a `!` pattern, or drop it from paths",
                )

    def _is_left_out_below(self, root: bytes, path: bytes) -> bool:
        while path != root:
            if self._excludes.leaves_out(path, is_directory=True):
                return True
            path = os.path.dirname(path)
        return False


def _begins_with(directory: int, entry: Entry, signature: bytes) -> bool:
    """Whether a tag is valid. One that cannot be read is not: rather too much in the backup."""
    if not signature:
        return True
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


def _patterns_in(exclude_file: str | None) -> list[str]:
    if exclude_file is None:
        return []
    try:
        with open(exclude_file, encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
            patterns = list(lines)
        Excludes(patterns)
    except OSError as exc:
        hint = "create it, or drop exclude_file" if exc.errno == errno.ENOENT else None
        raise UsageError(f"exclude file {exclude_file!r}: {exc.strerror}", hint=hint) from exc
    except ValueError as exc:
        raise UsageError(f"exclude file {exclude_file!r}: {exc}") from exc
    return patterns
