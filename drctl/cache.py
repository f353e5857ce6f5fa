"""Files that only spare time: kept per user, lost without harm.

Invariant: what is loaded is what was saved whole, or nothing; a cache that cannot be written is no
error.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")


class LocalCache:
    """`ports.Cache` in a folder of this user, mode 0700."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def load(self, name: str) -> bytes | None:
        """See `ports.Cache.load`."""
        try:
            with open(self._path(name), "rb") as file:
                return file.read()
        except OSError:
            return None

    def save(self, name: str, data: bytes) -> None:
        """See `ports.Cache.save`."""
        path = self._path(name)
        with suppress(OSError):  # read-only home, full disk: the next run takes longer
            _make_private(self._folder)
            descriptor, temporary = tempfile.mkstemp(dir=self._folder, prefix=".new-")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                os.replace(temporary, path)
            except OSError:
                os.unlink(temporary)
                raise

    def _path(self, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError(f"not a cache name: {name!r}")
        return os.path.join(self._folder, name)


def _make_private(folder: str) -> None:
    # not os.makedirs: what it makes above the last one is open to whom the umask says
    if folder and not os.path.isdir(folder):
        _make_private(os.path.dirname(folder))
        with suppress(FileExistsError):
            os.mkdir(folder, 0o700)


def cache_folder(environment: Mapping[str, str]) -> str:
    """`$DRCTL_CACHE`, else drctl's folder in `$XDG_CACHE_HOME` or ~/.cache."""
    if given := environment.get("DRCTL_CACHE"):
        return given
    home = environment.get("XDG_CACHE_HOME") or os.path.join(environment.get("HOME", "/root"), ".cache")
    return os.path.join(home, "drctl")
