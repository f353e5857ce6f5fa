"""Plans and option types the planfile tests share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from drctl.domain.plan import Plan, SecretReference
from drctl.errors import UsageError
from drctl.planfile.errors import PlanError
from drctl.planfile.read import read_plan


@dataclass(frozen=True, slots=True)
class FilesOptions:
    """A file tree."""

    paths: tuple[str, ...] = field(metadata={"description": "What is backed up."})
    exclude: tuple[str, ...] = ()
    one_file_system: bool = False


@dataclass(frozen=True, slots=True)
class CommandOptions:
    """The standard output of a command."""

    command: tuple[str, ...]
    timeout: timedelta = timedelta(hours=1)

    def __post_init__(self) -> None:
        if not self.command:
            raise UsageError("an empty command", hint="write command: [pg_dump, shop]")


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """A folder of this machine."""

    path: str


@dataclass(frozen=True, slots=True)
class Lock:
    """Object Lock."""

    mode: str = "governance"
    days: int = 30


@dataclass(frozen=True, slots=True)
class S3Options:
    """A bucket of an S3-compatible service."""

    bucket: str
    secret_key: SecretReference | None = None
    lock: Lock | None = None
    part_size: int = field(default=8 << 20, metadata={"unit": "size"})


@dataclass(frozen=True, slots=True)
class SftpOptions:
    """A folder of a host."""

    path: str
    host: str | None = None

    def __post_init__(self) -> None:
        if not self.path.startswith("/"):
            raise ValueError(f"not absolute: {self.path!r}")


SOURCES: Mapping[str, type] = {"files": FilesOptions, "command": CommandOptions}
STORAGES: Mapping[str, type] = {"local": LocalOptions, "s3": S3Options, "sftp": SftpOptions}

GOOD = """\
organisation: Example AB
time_zone: Europe/Stockholm
sites:
  here: {description: The cellar}
hosts:
  web1: {site: here}
repositories:
  main:
    site: here
    storage: {kind: local, path: /var/lib/drctl/repository}
    key: {file: /etc/drctl/main.key}
services:
  docs:
    policy: nightly-30d
    repositories: [main]
    sources:
      files: {kind: files, paths: [/usr/share/doc], exclude: ["*.tmp"]}
"""


def read(folder: Path, text: str | bytes, environment: Mapping[str, str] | None = None) -> Plan:
    """Read the text as `drctl.yaml` in the folder."""
    path = folder / "drctl.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_plan(str(path), environment or {}, SOURCES, STORAGES)


def problems(folder: Path, text: str | bytes, environment: Mapping[str, str] | None = None) -> list[str]:
    """The error's lines, files by their names below the folder; empty when the plan is right."""
    try:
        read(folder, text, environment)
    except PlanError as exc:
        assert [str(problem) for problem in exc.problems] == exc.message.splitlines()
        return [line.removeprefix(f"{folder}/") for line in exc.message.splitlines()]
    return []
