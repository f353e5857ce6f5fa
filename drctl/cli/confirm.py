"""The question before something is destroyed.

Invariant: without `--yes` nothing destructive happens unless a person at a terminal typed the
name of what is about to go; silence, a pipe and a wrong name are refusals (exit code 40).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from drctl.errors import RefusedError

if TYPE_CHECKING:
    from drctl.cli.output import Output


def confirm(out: Output, act: str, name: str, *, yes: bool) -> None:
    """`act` says what will happen ("delete 3 snapshots of web"), `name` is what must be typed."""
    if yes:
        return
    if not (out.interactive and sys.stdin.isatty()):
        raise RefusedError(f"not confirmed: {act}", hint="look at what would happen, then pass --yes")
    typed = out.ask(f"This will {act}. Type {name!r} to go on: ")
    if typed != name:
        raise RefusedError(f"not confirmed: {act}", hint=f"nothing was changed; to go on, type {name!r}")
