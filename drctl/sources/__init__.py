"""What is backed up: one module per kind of source, found by name and loaded only when used.

Invariant: importing this package imports no adapter; a new kind is one module and one line here
(or an entry point of the group `drctl.sources` in another distribution).
"""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module

from drctl.errors import UsageError

ENTRY_POINT_GROUP = "drctl.sources"

# kind in the plan -> "module:Class"; the class names its options dataclass in `Options`
REGISTRY: dict[str, str] = {
    "files": "drctl.sources.files:FilesSource",
    "command": "drctl.sources.command:CommandSource",
    "image": "drctl.sources.image:ImageSource",
}

# the same kinds on a host that has an address; these take (options, remote)
REMOTE_REGISTRY: dict[str, str] = {
    "files": "drctl.sources.remote_files:RemoteFilesSource",
}


def all_sources() -> dict[str, str]:
    """Every kind there is, plug-ins included; a built-in name cannot be taken by a plug-in."""
    from importlib.metadata import entry_points

    plugged_in = {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}
    return plugged_in | REGISTRY


def load_source(kind: str, *, remote: bool = False) -> type:
    """The adapter class of a kind, imported now. `remote`: for a host that has an address.

    UsageError when there is no such kind, with the nearest name as hint."""
    location = (REMOTE_REGISTRY if remote else REGISTRY).get(kind)
    if location is None and not remote:
        location = all_sources().get(kind)
    if location is None:
        raise _unknown(kind, remote=remote)
    module, _, name = location.partition(":")
    found: type = getattr(import_module(module), name)
    return found


def _unknown(kind: str, *, remote: bool) -> UsageError:
    if remote and kind in all_sources():
        return UsageError(
            f"a source of kind {kind!r} cannot be read from another host",
            hint=f"over SSH: {', '.join(sorted(REMOTE_REGISTRY))}; or run drctl on that host",
        )
    known = sorted(REMOTE_REGISTRY if remote else all_sources())
    near = get_close_matches(kind, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    return UsageError(f"unknown kind of source {kind!r}", hint=hint)
