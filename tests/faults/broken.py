"""drctl with a fault of its own, for the positive controls: `python -m tests.faults.broken WHICH words`.

The suites must report each of these; a suite that lets one pass proves nothing.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

from drctl.errors import StorageError
from drctl.ports import Buffer
from drctl.storage.local import LocalStorage
from drctl.storage.os_errors import translated


def _torn_save(self: LocalStorage, key: str, parts: Sequence[Buffer]) -> None:
    """Under the final name at once, in pieces, without fsync."""
    path = self._path(key)
    with translated(self._base, f"save {key}"):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "xb", buffering=0) as file:
            for part in parts:
                view = memoryview(part).cast("B")
                for start in range(0, len(view), max(1, len(view) // 4)):
                    time.sleep(_pause_s)
                    file.write(view[start : start + max(1, len(view) // 4)])


_pause_s = 0.0  # so that a kill at a random moment meets it


def _no_sync(_descriptor: int) -> None:
    """As a disk that lies."""


_save = LocalStorage.save


def _deaf_save(self: LocalStorage, key: str, parts: Sequence[Buffer]) -> None:
    """Takes a failed write of a pack for a success."""
    try:
        _save(self, key, parts)
    except StorageError:
        if not key.startswith("data/"):
            raise


def break_it(which: str) -> None:
    """Change drctl in this process."""
    match which:
        case "torn" | "torn-slowly":
            global _pause_s  # noqa: PLW0603 - this module exists to change a process
            _pause_s = 0.1 if which == "torn-slowly" else 0.0
            LocalStorage.save = _torn_save  # type: ignore[method-assign]
        case "deaf":
            LocalStorage.save = _deaf_save  # type: ignore[method-assign]
        case "lying-disk":
            os.fsync = _no_sync  # type: ignore[assignment]
        case _:
            raise ValueError(f"no such control: {which}")


if __name__ == "__main__":
    from drctl.cli import main

    control = sys.argv.pop(1)
    break_it(control)
    sys.exit(main())
