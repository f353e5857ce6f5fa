"""What the cache makes is for its owner only, whatever the umask."""

from __future__ import annotations

import os
from pathlib import Path

from drctl.cache import LocalCache


def test_with_umask_0_neither_file_nor_any_folder_is_open_to_others(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        LocalCache(str(tmp_path / "home" / ".cache" / "drctl")).save("name", b"data")
    finally:
        os.umask(before)
    made = list(tmp_path.rglob("*"))
    assert len(made) == 4
    assert [path for path in made if path.stat().st_mode & 0o077] == []
