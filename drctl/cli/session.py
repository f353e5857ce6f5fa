"""One run of drctl: what the common options said, and the way to the plan and the printer.

Invariant: there is one session per process; commands get it as their first argument.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from drctl.errors import UsageError

if TYPE_CHECKING:
    from drctl.cli.output import Output
    from drctl.domain.events import Emit
    from drctl.ports import Clock
    from drctl.wiring import Wiring

PLAN_FILES = (Path("drctl.yaml"), Path("/etc/drctl/drctl.yaml"))


class Session:
    """What a command function works with: `out`, `clock`, `environment`, the plan file, `confirm`."""

    def __init__(self, out: Output, clock: Clock, environment: Mapping[str, str]) -> None:
        self.out = out
        self.clock = clock
        self.environment = environment
        self.plan_option: Path | None = None

    def plan_file(self) -> Path:
        """The plan that was asked for, or the first of PLAN_FILES; UsageError when there is none."""
        if self.plan_option is not None:
            if not self.plan_option.is_file():
                raise UsageError(f"no plan file at {self.plan_option}", hint="write one with: drctl init")
            return self.plan_option
        for candidate in PLAN_FILES:
            if candidate.is_file():
                return candidate
        raise UsageError(
            f"no plan file: looked for {' and '.join(str(path) for path in PLAN_FILES)}",
            hint="write one with `drctl init`, or name one with --plan FILE or $DRCTL_PLAN",
        )

    def wiring(self) -> Wiring:
        """The plan, read and checked, and the way to everything it names."""
        from drctl.wiring import Wiring, load_plan

        return Wiring(load_plan(self.plan_file(), self.environment), self.environment, self.clock)

    @contextmanager
    def progress(self) -> Iterator[Emit]:
        """An `Emit` that shows progress while the block runs, and notices in any case."""
        from drctl.cli.progress import follow

        with follow(self.out, self.clock) as emit:
            yield emit

    def confirm(self, act: str, name: str, *, yes: bool) -> None:
        """Go on only when `--yes` was given or a person types `name`; otherwise RefusedError (40)."""
        from drctl.cli.confirm import confirm

        confirm(self.out, act, name, yes=yes)
