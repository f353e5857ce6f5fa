"""The options every command understands, before or after its name.

Invariant: flags win over `DRCTL_*` environment variables, and these over the plan file; of two
flags the one nearest to the command wins.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
from click.core import ParameterSource

from drctl.cli.output import Format
from drctl.cli.session import Session


def add_common_options(command: click.Command) -> None:
    """Append the common options; their values go to the session, not to the function."""
    command.params.extend(common_options())


def common_options() -> list[click.Option]:
    """Fresh options: click binds an option to one command."""
    return [
        click.Option(
            ["--plan", "-p"],
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE",
            envvar="DRCTL_PLAN",
            show_envvar=True,
            help="The plan file.  [default: ./drctl.yaml, then /etc/drctl/drctl.yaml]",
            expose_value=False,
            callback=_keep(lambda session, value: setattr(session, "plan_option", value)),
        ),
        click.Option(
            ["--output"],
            type=click.Choice([form.value for form in Format]),
            envvar="DRCTL_OUTPUT",
            show_envvar=True,
            help="Text for people, or JSON lines for programs.  [default: text]",
            expose_value=False,
            callback=_keep(lambda session, value: setattr(session.out, "format", Format(str(value)))),
        ),
        click.Option(
            ["--quiet", "-q"],
            is_flag=True,
            envvar="DRCTL_QUIET",
            show_envvar=True,
            help="Only data, warnings and errors.",
            expose_value=False,
            callback=_keep(lambda session, value: setattr(session.out, "quiet", value)),
        ),
        click.Option(
            ["--verbose", "-v"],
            is_flag=True,
            envvar="DRCTL_VERBOSE",
            show_envvar=True,
            help="Say more about what is done.",
            expose_value=False,
            callback=_keep(lambda session, value: setattr(session.out, "verbose", value)),
        ),
    ]


def _keep(
    store: Callable[[Session, object], None],
) -> Callable[[click.Context, click.Parameter, object], object]:
    def callback(ctx: click.Context, parameter: click.Parameter, value: object) -> object:
        source = ctx.get_parameter_source(parameter.name or "")
        # the environment counts once, at the root: below it would beat a flag given before the command
        from_environment = source is ParameterSource.ENVIRONMENT and ctx.parent is None
        if source is ParameterSource.COMMANDLINE or from_environment:
            store(ctx.ensure_object(Session), value)
        return value

    return callback
