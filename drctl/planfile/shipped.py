"""Where policies and playbooks are found by name: the plan's own folder first, then drctl's own.

Invariant: an installed drctl and a checkout find the same names; a name never leaves its folder.
"""

from __future__ import annotations

import os
from importlib import resources
from typing import Literal

from drctl.errors import UsageError

Kind = Literal["policies", "playbooks"]
_ENDING = ".yaml"


def shipped_folder(kind: Kind) -> str:
    """The folder of what comes with drctl: package data when installed, else the checkout's own."""
    package = str(resources.files("drctl"))
    installed = os.path.join(package, "shipped", kind)
    return installed if os.path.isdir(installed) else os.path.join(os.path.dirname(package), kind)


def find_by_name(kind: Kind, plan_folder: str) -> dict[str, str]:
    """All names of a kind with their files; those next to the plan win over shipped ones."""
    found: dict[str, str] = {}
    for folder in (shipped_folder(kind), os.path.join(plan_folder, kind)):
        found.update(_named_files(folder))
    return found


def _named_files(folder: str) -> dict[str, str]:
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as exc:
        raise UsageError(f"cannot list the folder {folder}: {(exc.strerror or 'error').lower()}") from exc
    return {
        name.removesuffix(_ENDING): os.path.join(folder, name)
        for name in names
        if name.endswith(_ENDING) and not name.startswith(".")
    }
