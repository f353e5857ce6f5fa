"""`drctl repo key`: who can open a repository.

Invariant: every key opens the same data, so removing one re-encrypts nothing; the key in use never goes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from drctl.cli.command import command, repository_option, yes_option
from drctl.cli.session import Session
from drctl.cli.table import Column, show_instant
from drctl.errors import CorruptError

if TYPE_CHECKING:
    from drctl.repository.repo import Repository


def _show_created(text: str) -> str:
    from drctl.repository.snapshot import instant

    try:
        return show_instant(instant(text, "created"))
    except CorruptError:  # whoever made the key may have written anything
        return text


COLUMNS = (
    Column("short_id", "ID"),
    Column("hostname", "Host"),
    Column("username", "User"),
    Column("created", "Created", _show_created),
    Column("in_use", "In use"),
)


@command(name="list")
@repository_option
def list_(session: Session, repository: str | None) -> None:
    """List the keys that open a repository: where and when each was made."""
    wiring = session.wiring()
    rows = key_rows(wiring.repository(wiring.repository_spec(repository)))
    session.out.table("key", COLUMNS, rows)


@command(
    examples=(
        ("drctl repo key add /root/recovery.key --generate", "a second key, to be kept somewhere else"),
        ("drctl repo key add /root/old.key", "the key or passphrase that a file holds"),
    )
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--generate", is_flag=True, help="Make FILE with a random key first; it must not exist.")
@repository_option
def add(session: Session, file: Path, generate: bool, repository: str | None) -> None:
    """Let the key in FILE open a repository too. FILE must be readable by its owner only."""
    from drctl.cli.new_file import write_new_key
    from drctl.credentials import read_secret
    from drctl.domain.plan import SecretReference
    from drctl.workflows.keys import add_key

    wiring = session.wiring()
    spec = wiring.repository_spec(repository)
    opened = wiring.repository(spec)
    reference = SecretReference(file=str(file))
    key = (
        write_new_key(file.absolute()) if generate else read_secret(reference, session.environment, "new key")
    )
    identifier = add_key(opened, key, session.clock)
    fields = {"id": identifier.hex(), "repository": spec.name, "file": file}
    session.out.record("key", fields, f"added key {identifier.hex()[:8]}: {file} opens {spec.name} now")


@command(examples=(("drctl repo key remove 1a2b3c4d", "whoever has that key cannot open it any more"),))
@click.argument("key")
@repository_option
@yes_option
def remove(session: Session, key: str, repository: str | None, yes: bool) -> None:
    """Remove KEY, named by the beginning of its id. The key in use cannot be removed.

    Whoever copied the repository together with that key can still read that copy."""
    from drctl.workflows.keys import find_key, remove_key

    wiring = session.wiring()
    spec = wiring.repository_spec(repository)
    opened = wiring.repository(spec)
    row = find_key(opened, key)
    short_id = row.id.hex()[:8]
    act = f"remove key {short_id} of {row.username}@{row.hostname} from {spec.name}"
    session.confirm(act, short_id, yes=yes)
    remove_key(opened, row.id)
    fields = {"id": row.id.hex(), "repository": spec.name, "removed": True}
    session.out.record("key", fields, f"done: {act}")


def key_rows(repository: Repository) -> list[dict[str, object]]:
    """What the key files say about themselves."""
    from drctl.workflows.keys import list_keys

    return [
        {
            "id": row.id.hex(),
            "short_id": row.id.hex()[:8],
            "hostname": row.hostname,
            "username": row.username,
            "created": row.created or row.problem,
            "in_use": row.in_use,
        }
        for row in list_keys(repository)
    ]
