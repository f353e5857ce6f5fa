"""The command line: parses, wires, calls one workflow and prints.

Invariant: importing this package imports click and nothing heavier; a command's module is
imported when that command runs (or shows its own help), never for `drctl --help`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> int:
    """Run one command; the exit code (`drctl.errors.ExitCode`) is returned, never raised."""
    from drctl.cli.boundary import run
    from drctl.cli.tree import root

    return run(
        root(),
        list(sys.argv[1:] if arguments is None else arguments),
        os.environ if environment is None else environment,
    )
