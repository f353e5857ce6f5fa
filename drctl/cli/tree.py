"""The command tree as a table: what exists, in the order in which it is taught.

Invariant: only commands that exist stand here; `--help` is rendered from this table alone, so
no command's module is imported for it. Adding a command is one line in COMMANDS.
"""

from __future__ import annotations

from typing import NamedTuple

from drctl.cli.lazy import LazyGroup


class Leaf(NamedTuple):
    """One command: its words, where its click command lies (`module:attribute`), one line of help."""

    words: str
    target: str
    help: str


# group -> one line of help; a group without a command below is not shown
GROUPS = {
    "plan": "Check and show the plan file",
    "backup": "Take backups and look into them",
    "snapshot": "Protect single snapshots from deletion",
    "retention": "Decide what is deleted, show why, and do it",
    "repo": "Look after repositories: check, prune, copy, keys",
    "repo key": "Decide who can open a repository",
}

COMMANDS = (
    Leaf("init", "drctl.cli.init:init", "Write a plan for this machine, make its repository and key"),
    Leaf("plan validate", "drctl.cli.plan:validate", "Check the plan: every problem at once, with its place"),
    Leaf("plan show", "drctl.cli.plan:show", "Show what the plan says, all included and resolved"),
    Leaf("plan schema", "drctl.cli.plan:schema", "Print the plan's JSON Schema, for an editor"),
    Leaf("backup run", "drctl.cli.backup:run", "Take a backup of services, now"),
    Leaf("backup list", "drctl.cli.backup:list_", "List snapshots"),
    Leaf("backup show", "drctl.cli.backup:show", "Show one snapshot, or what is in it"),
    Leaf("backup diff", "drctl.cli.backup:diff", "Show what differs between two snapshots"),
    Leaf("restore", "drctl.cli.restore:restore", "Get data back: whole, by path, or as it was at a time"),
    Leaf("snapshot hold", "drctl.cli.snapshot:hold", "Keep retention from deleting a snapshot"),
    Leaf("snapshot release", "drctl.cli.snapshot:release", "Take a hold off a snapshot"),
    Leaf("retention plan", "drctl.cli.retention:plan", "Show what stays, what would be deleted, and why"),
    Leaf("retention apply", "drctl.cli.retention:apply", "Delete what retention lets go"),
    Leaf("repo init", "drctl.cli.repo:init", "Make a repository of the plan"),
    Leaf("repo check", "drctl.cli.repo:check", "Check that everything can be restored"),
    Leaf("repo prune", "drctl.cli.prune:prune", "Remove the bytes that no snapshot needs"),
    Leaf("repo copy", "drctl.cli.copy:copy", "Copy snapshots into another repository"),
    Leaf("repo stats", "drctl.cli.repo:stats", "Show what a repository holds and takes"),
    Leaf("repo unlock", "drctl.cli.repo:unlock", "Remove the locks of processes that are gone"),
    Leaf("repo verify-storage", "drctl.cli.repo:verify_storage", "Try whether a storage can be relied on"),
    Leaf("repo key list", "drctl.cli.key:list_", "List the keys that open a repository"),
    Leaf("repo key add", "drctl.cli.key:add", "Let one more key open a repository"),
    Leaf("repo key remove", "drctl.cli.key:remove", "Take a key away"),
    Leaf("completion", "drctl.cli.completion:completion", "Print a completion script for bash, zsh or fish"),
)

# heading -> first words of the commands under it, in the order a newcomer meets them
SECTIONS = {
    "Start": ("init", "plan"),
    "Back up and restore": ("backup", "restore"),
    "Keep and delete": ("snapshot", "retention"),
    "Repositories": ("repo",),
    "This program": ("completion",),
}

EXAMPLES = (
    ("drctl init", "write a plan for this machine, make its repository and key"),
    ("drctl backup run", "back up every service of the plan"),
    ("drctl backup list", "the snapshots there are"),
    ("drctl restore SNAPSHOT --target DIR", "get everything back"),
    ("drctl retention plan", "what would be deleted, and why"),
)

ABOUT = """Continuity as code: a plan file says what was promised; drctl performs and proves it.

Flags win over DRCTL_* environment variables, and these over the plan file. Data goes to
standard output, messages go to standard error."""


def root() -> LazyGroup:
    """The whole command tree, nothing of it imported yet."""
    from drctl.cli.lazy import build_root

    return build_root(COMMANDS, GROUPS, SECTIONS, EXAMPLES, ABOUT)
