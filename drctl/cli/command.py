"""How a command function becomes a click command with the common options.

Invariant: every command gets the session first, and what it returns is its exit code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import update_wrapper
from typing import Any, Concatenate, ParamSpec

import click

from drctl.cli.options import add_common_options
from drctl.cli.session import Session
from drctl.errors import ExitCode

P = ParamSpec("P")
Example = tuple[str, str]


class Command(click.Command):
    """A click command with the common options and examples in its help."""

    def __init__(self, *arguments: Any, examples: Sequence[Example] = (), **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.examples = examples
        add_common_options(self)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.examples:
            with formatter.section("Examples"):
                formatter.write_dl(list(self.examples), col_max=44)


def command(
    *, examples: Sequence[Example] = (), **settings: Any
) -> Callable[[Callable[Concatenate[Session, P], ExitCode | None]], Command]:
    """Decorate `def act(session, option, ...) -> ExitCode | None`; None is OK. The docstring is the
    help text; options and arguments are added with `click.option` and `click.argument` below it.
    `examples` are (command line, what it does) pairs."""

    def decorate(function: Callable[Concatenate[Session, P], ExitCode | None]) -> Command:
        def call(*arguments: P.args, **options: P.kwargs) -> ExitCode | None:
            session = click.get_current_context().find_object(Session)
            assert session is not None, "the boundary puts it there"
            return function(session, *arguments, **options)

        made: Command = click.command(cls=Command, examples=examples, **settings)(
            update_wrapper(call, function)
        )
        return made

    return decorate


yes_option = click.option(
    "--yes",
    is_flag=True,
    help="Do it without asking. Without a terminal nothing is done unless this is given.",
)

repository_option = click.option(
    "--repository",
    "-r",
    metavar="NAME",
    help="The repository of the plan that is meant; not needed where the plan has one.",
)

# the same as `repository_option`, for commands that are about one repository
name_argument = click.argument("name", metavar="[NAME]", required=False)
