"""`drctl completion`: the script that teaches a shell drctl's words.

Invariant: the script asks drctl itself, so it never goes stale.
"""

from __future__ import annotations

import click

from drctl.cli.boundary import COMPLETE_VARIABLE
from drctl.cli.command import command
from drctl.cli.session import Session

SHELLS = ("bash", "zsh", "fish")


@command(
    examples=(
        ("drctl completion bash > /etc/bash_completion.d/drctl", "for every user of bash"),
        ("drctl completion fish > ~/.config/fish/completions/drctl.fish", "for this user of fish"),
    )
)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(session: Session, shell: str) -> None:
    """Print the completion script for SHELL; load it at the start of the shell."""
    from click.shell_completion import get_completion_class

    root = click.get_current_context().find_root().command
    kind = get_completion_class(shell)
    assert kind is not None, "click knows the shells of SHELLS"
    session.out.document(kind(root, {}, "drctl", COMPLETE_VARIABLE).source())
