"""Click groups whose commands are imported when they are run, not when they are listed.

Invariant: listing, helping, completing and did-you-mean read the table only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

import click

from drctl import __version__
from drctl.cli.options import add_common_options
from drctl.errors import EXIT_CODE_MEANINGS

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class Described(Protocol):
    """A row of the command table."""

    @property
    def words(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def help(self) -> str: ...


class LazyGroup(click.Group):
    """A group that knows name, help line and import target of each command below it."""

    def __init__(
        self, name: str, help_text: str, sections: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        super().__init__(name=name, help=help_text, no_args_is_help=True)
        self.sections = sections
        self.targets: dict[str, str] = {}
        self.help_lines: dict[str, str] = {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In taught order, never sorted: the table's order, or the sections' where there are some."""
        if self.sections is None:
            return list(self.help_lines)
        return [name for names in self.sections.values() for name in names if name in self.help_lines]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self.targets and cmd_name not in self.commands:
            module, _, attribute = self.targets[cmd_name].partition(":")
            loaded: click.Command = getattr(import_module(module), attribute)
            loaded.name = cmd_name
            self.commands[cmd_name] = loaded
        return self.commands.get(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with did-you-mean over commands that are not imported yet."""
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as exc:
            raise click.exceptions.NoSuchCommand(
                exc.command_name, possibilities=self.help_lines, ctx=ctx
            ) from exc

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, names in (self.sections or {"Commands": tuple(self.help_lines)}).items():
            rows = [(name, self.help_lines[name]) for name in names if name in self.help_lines]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows, col_max=16)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        found = [
            CompletionItem(name, help=line)
            for name, line in self.help_lines.items()
            if name.startswith(incomplete)
        ]
        # past click.Group's own listing, which would import every command
        return found + super(click.Group, self).shell_complete(ctx, incomplete)


class RootGroup(LazyGroup):
    """`drctl` itself: sections, examples and the exit-code table."""

    examples: Sequence[tuple[str, str]] = ()

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        shown = [row for row in self.examples if row[0].split()[1] in self.help_lines]
        for title, rows in (("Examples", shown), ("Exit codes", exit_code_rows())):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows, col_max=38)


def exit_code_rows() -> list[tuple[str, str]]:
    """The exit-code table as text, from the one table in `drctl.errors`."""
    return [(str(int(code)), meaning) for code, meaning in EXIT_CODE_MEANINGS.items()]


def build_root(
    leaves: Iterable[Described],
    groups: Mapping[str, str],
    sections: Mapping[str, Sequence[str]],
    examples: Sequence[tuple[str, str]],
    about: str,
) -> RootGroup:
    """A root group from the tables; no command module is imported."""
    root = RootGroup("drctl", about, sections)
    root.examples = examples
    root.context_settings = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
    root.params.append(version_option())
    add_common_options(root)
    for leaf in leaves:
        *above, name = leaf.words.split()
        parent: LazyGroup = root
        for word in above:
            parent = _child_group(parent, word, groups)
        parent.targets[name] = leaf.target
        parent.help_lines[name] = leaf.help
    return root


def _child_group(parent: LazyGroup, word: str, groups: Mapping[str, str]) -> LazyGroup:
    found = parent.commands.get(word)
    if isinstance(found, LazyGroup):
        return found
    path = f"{parent.name} {word}".removeprefix("drctl ")
    group = LazyGroup(word, groups[path])
    parent.commands[word] = group
    parent.help_lines[word] = groups[path]
    return group


def version_option() -> click.Option:
    """`--version`, without looking into installed metadata (slow)."""

    def show(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
        if wanted and not ctx.resilient_parsing:
            click.echo(f"drctl {__version__}")
            ctx.exit()

    return click.Option(
        ["--version"],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=show,
        help="Show the version and exit.",
    )
