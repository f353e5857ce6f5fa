"""What of a file tree belongs to a backup: roots, excludes and tags, whatever the tree is read by.

Invariant: rules only take away what the plan names; a path that is named and excluded at once is
refused rather than guessed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from drctl.errors import UsageError
from drctl.ports import Entry
from drctl.sources.excludes import Excludes
from drctl.sources.local_directory import Listing
from drctl.sources.roots import contains, normalise_roots

if TYPE_CHECKING:
    from drctl.sources.files import FilesOptions

CACHE_TAG = b"CACHEDIR.TAG"
# https://bford.info/cachedir/: a regular file that begins with these bytes
CACHE_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"


class Rules:
    """A plan's `FilesOptions`, ready to be asked."""

    def __init__(self, options: FilesOptions) -> None:
        """UsageError when `exclude_file` cannot be used or a path is named and excluded at once."""
        self.named, self.roots = normalise_roots(options.paths)
        self.one_file_system = options.one_file_system
        self._excludes = Excludes([*options.exclude, *_patterns_in(options.exclude_file)])
        self._tags = dict.fromkeys(map(os.fsencode, options.exclude_if_present), b"")
        if options.exclude_caches:
            self._tags.setdefault(CACHE_TAG, CACHE_SIGNATURE)
        self.take_nothing_away = not (self._excludes or self._tags or self.one_file_system)
        self._refuse_contradictions()

    def root_of(self, path: bytes) -> bytes:
        """The root that `path` is or lies in; ValueError if there is none."""
        for root in self.roots:
            if contains(root, path):
                return root
        raise ValueError(f"{path!r} is in no root")

    def nearest_named(self, path: bytes) -> bytes:
        """The path of the plan whose file system `path` has to share (one_file_system)."""
        return max((named for named in self.named if contains(named, path)), key=len)

    def keep(self, path: bytes, listing: Listing, begins_with: Callable[[Entry, bytes], bool]) -> Listing:
        """What of a directory's listing is backed up. `begins_with` looks into a regular file; a tag
        that cannot be read is no tag: rather too much in the backup than too little."""
        entries, unreadable = listing
        for entry in entries:
            signature = self._tags.get(entry.name)
            if signature == b"" or (signature and begins_with(entry, signature)):
                return [entry], []
        if self._excludes:
            entries = self._excludes.keep(path, entries)
            unreadable = [
                (name, why)
                for name, why in unreadable
                if not self._excludes.leaves_out(os.path.join(path, name), is_directory=False)
            ]
        return entries, unreadable

    def _refuse_contradictions(self) -> None:
        for named in self.named:
            root = path = self.root_of(named)
            for part in named[len(root) :].strip(b"/").split(b"/") if named != root else ():
                path = os.path.join(path, part)
                if self._excludes.leaves_out(path, is_directory=True):
                    raise UsageError(
                        f"{os.fsdecode(named)!r} is named in paths and excluded in {os.fsdecode(root)!r}",
                        hint="take each directory on the way back with a `!` pattern, or drop it from paths",
                    )


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
