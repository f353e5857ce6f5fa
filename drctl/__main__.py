"""`python -m drctl`: the same as the `drctl` command."""

from __future__ import annotations

import sys

from drctl.cli import main

if __name__ == "__main__":
    sys.exit(main())
