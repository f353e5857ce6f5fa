"""Where repositories lie: one file per kind of storage, found by its name.

Invariant: nothing is imported before its kind is asked for. Deleting a file and its line here
removes that kind; an installed package adds one by an entry point of the group `drctl.storage`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from drctl.errors import UsageError

REGISTRY: dict[str, str] = {
    "local": "drctl.storage.local:LocalStorage",
    "s3": "drctl.storage.s3:S3Storage",
    "sftp": "drctl.storage.sftp:SftpStorage",
}

ENTRY_POINTS = "drctl.storage"


@dataclass(frozen=True, slots=True)
class StorageKind:
    """A kind's class and the frozen dataclass of its options.

    The constructor takes the options first. What else it takes differs: `sftp` a `ports.Remote`,
    `s3` a `ports.Clock` and its credentials."""

    name: str
    storage: Any
    options: type


def storage_kinds() -> dict[str, str]:
    """All kinds by name, each with its `module:Class`; an entry point cannot replace our own."""
    from importlib.metadata import entry_points

    found = {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}
    return found | REGISTRY


def storage_kind(name: str) -> StorageKind:
    """Load one kind; UsageError with the nearest name when there is none."""
    from importlib import import_module

    known = storage_kinds()
    if name not in known:
        from difflib import get_close_matches

        near = get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}"
        raise UsageError(f"unknown kind of storage: {name}", hint=hint)
    module, _, attribute = known[name].partition(":")
    try:
        storage = getattr(import_module(module), attribute)
        options = storage.Options
    except (ImportError, AttributeError) as exc:
        raise UsageError(
            f"the storage kind {name} cannot be loaded from {known[name]}: {exc}",
            hint="update or remove the package that brings it",
        ) from exc
    return StorageKind(name, storage, options)
