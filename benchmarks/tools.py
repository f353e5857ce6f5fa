"""The programs that are measured, each called as its users call it.

Invariant: all of them encrypt, compress with zstd and write to a local repository; their caches lie
below the folder given, not in the home of whoever measures.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

_PROJECT = Path(__file__).resolve().parent.parent
_PASSWORD = "benchmark"


class Tool(Protocol):
    """One program with one repository for one tree."""

    name: str
    repository: Path
    environment: dict[str, str]

    def version(self) -> str: ...
    def prepare(self) -> None:
        """Make the repository; not measured."""
        ...

    def backup(self) -> list[str]: ...
    def restore(self, target: Path) -> list[str]: ...
    def check(self) -> list[str]: ...
    def list_snapshots(self) -> list[str]: ...
    def help(self) -> list[str]: ...


def _quietly(argv: Sequence[str], environment: dict[str, str]) -> str:
    result = subprocess.run(argv, env=environment, check=False, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{' '.join(argv)}\nfailed with {result.returncode}:\n{result.stdout}{result.stderr}")
    return result.stdout


class Drctl:
    """This project, as `python -m drctl`."""

    name = "drctl"

    def __init__(self, folder: Path, tree: Path) -> None:
        self.repository = folder / "drctl" / "repository"
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(_PROJECT),
            "XDG_CACHE_HOME": str(folder / "cache"),
        }
        # an installed program has its bytecode
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self._tree = tree
        self._base = [sys.executable, "-m", "drctl", "--plan", str(folder / "drctl" / "drctl.yaml")]
        self._folder = folder / "drctl"

    def version(self) -> str:
        return _quietly([*self._base[:3], "--version"], self.environment).strip()

    def prepare(self) -> None:
        argv = [*self._base[:3], "init", str(self._folder), "--path", str(self._tree)]
        _quietly(argv, self.environment)

    def backup(self) -> list[str]:
        return [*self._base, "backup", "run"]

    def restore(self, target: Path) -> list[str]:
        return [*self._base, "restore", "latest", "--target", str(target), "--yes"]

    def check(self) -> list[str]:
        return [*self._base, "repo", "check", "--read-data"]

    def list_snapshots(self) -> list[str]:
        return [*self._base, "backup", "list"]

    def help(self) -> list[str]:
        return [*self._base[:3], "--help"]


class Restic:
    """restic: $DRCTL_BENCH_RESTIC, else the one in PATH."""

    name = "restic"

    def __init__(self, folder: Path, tree: Path) -> None:
        self.repository = folder / "restic"
        self.environment = {
            **os.environ,
            "RESTIC_PASSWORD": _PASSWORD,
            "RESTIC_CACHE_DIR": str(folder / "cache" / "restic"),
        }
        self._tree = tree
        self._base = [self.binary() or "restic", "--repo", str(self.repository)]

    @staticmethod
    def binary() -> str | None:
        return os.environ.get("DRCTL_BENCH_RESTIC") or shutil.which("restic")

    def version(self) -> str:
        return _quietly([self._base[0], "version"], self.environment).strip()

    def prepare(self) -> None:
        _quietly([*self._base, "init", "--repository-version", "2"], self.environment)

    def backup(self) -> list[str]:
        return [*self._base, "backup", str(self._tree)]

    def restore(self, target: Path) -> list[str]:
        return [*self._base, "restore", "latest", "--target", str(target)]

    def check(self) -> list[str]:
        return [*self._base, "check", "--read-data"]

    def list_snapshots(self) -> list[str]:
        return [*self._base, "snapshots"]

    def help(self) -> list[str]:
        return [self._base[0], "help"]


class Borg:
    """BorgBackup with zstd level 3."""

    name = "borg"

    def __init__(self, folder: Path, tree: Path) -> None:
        self.repository = folder / "borg"
        self.environment = {
            **os.environ,
            "BORG_PASSPHRASE": _PASSWORD,
            "BORG_BASE_DIR": str(folder / "cache" / "borg"),
            "BORG_REPO": str(self.repository),
        }
        self._tree = tree
        self._archives = 0

    @staticmethod
    def binary() -> str | None:
        return shutil.which("borg")

    def version(self) -> str:
        return _quietly(["borg", "--version"], self.environment).strip()

    def prepare(self) -> None:
        _quietly(["borg", "init", "--encryption", "repokey"], self.environment)

    def backup(self) -> list[str]:
        self._archives += 1
        return ["borg", "create", "--compression", "zstd,3", f"::a{self._archives}", str(self._tree)]

    def restore(self, target: Path) -> list[str]:
        target.mkdir(parents=True)
        return ["sh", "-c", 'cd "$1" && exec borg extract "$2"', "sh", str(target), f"::a{self._archives}"]

    def check(self) -> list[str]:
        return ["borg", "check", "--verify-data"]

    def list_snapshots(self) -> list[str]:
        return ["borg", "list"]

    def help(self) -> list[str]:
        return ["borg", "--help"]


def tools_found(wanted: Sequence[str]) -> dict[str, type[Drctl | Restic | Borg]]:
    """Those of the wanted that are installed."""
    found: dict[str, type[Drctl | Restic | Borg]] = {"drctl": Drctl}
    if Restic.binary():
        found["restic"] = Restic
    if Borg.binary():
        found["borg"] = Borg
    return {name: kind for name, kind in found.items() if name in wanted}
