"""Golden repositories, unpacked and opened; and what tests do to their files."""

from __future__ import annotations

import functools
import hashlib
import os
import tarfile
from pathlib import Path

from drctl.domain.plan import Compression
from drctl.domain.secret import Secret
from drctl.repository.opening import open_repository
from drctl.repository.repo import FileKind, Repository
from drctl.storage.local import LocalOptions, LocalStorage

FOLDER = Path(__file__).parent / "golden"
NAMES = sorted(path.name.removesuffix(".tar.gz") for path in FOLDER.glob("*.tar.gz"))
NEWEST = "restic-0.19-v2"
PASSWORD = Secret("golden")


def unpack(name: str, target: Path) -> Path:
    """Unpack a golden repository under `target`; returns its directory."""
    with tarfile.open(FOLDER / f"{name}.tar.gz") as archive:
        # our own files: nothing to filter, and Debian 12's Python 3.11.2 knows no filter yet
        for member in archive.getmembers():
            archive.extract(member, target, set_attrs=False)
    return target / "repo"


@functools.cache
def _opened(name: str, config: bytes, key_names: tuple[str, ...], example: Path) -> Repository:
    return open_repository(LocalStorage(LocalOptions(str(example))), PASSWORD)


def open_golden(name: str, directory: Path, compression: Compression = Compression.AUTO) -> Repository:
    """Open an unpacked one; scrypt is done once per golden, not once per test."""
    key_names = tuple(sorted(os.listdir(directory / "keys")))
    first = _opened(name, (directory / "config").read_bytes(), key_names, directory)
    storage = LocalStorage(LocalOptions(str(directory)))
    return Repository(storage, first._key, first.key_id, first.config, compression)


def files(directory: Path, kind: FileKind) -> list[Path]:
    """The files of a kind, by name."""
    return sorted(path for path in (directory / kind.value).rglob("*") if path.is_file())


def writable(path: Path) -> Path:
    """restic makes its files read-only."""
    path.chmod(0o600)
    return path


def flip(path: Path, offset: int) -> None:
    """Flip one bit of a file."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    writable(path).write_bytes(data)


def store_as_named(directory: Path, kind: FileKind, data: bytes) -> Path:
    """Write a file under the name that its hash gives it."""
    path = directory / kind.key(hashlib.sha256(data).digest())
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def picture(directory: Path) -> dict[str, tuple[str, int]]:
    """Every file's content hash and modification time: equal when nothing was written."""
    return {
        str(path.relative_to(directory)): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mtime_ns,
        )
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
