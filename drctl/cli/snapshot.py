"""`drctl snapshot`: protect single snapshots from deletion.

Invariant: a hold always has a name, a reason, an owner and either an expiry or the express wish
that it lasts until somebody releases it.
"""

from __future__ import annotations

from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING

import click

from drctl.cli.command import command, repository_option
from drctl.cli.session import Session
from drctl.cli.snapshot_view import short_id, snapshot_fields
from drctl.errors import UsageError

if TYPE_CHECKING:
    from drctl.repository.snapshot import Snapshot
    from drctl.wiring import Wiring


@command(
    examples=(
        ("drctl snapshot hold 1a2b3c4d --name legal --reason 'case 7' --for 90d", "keep it 90 days more"),
        ("drctl snapshot hold 1a2b3c4d --name audit --reason yearly --until 2027-03-31", "that day included"),
    )
)
@click.argument("snapshot")
@click.option("--name", required=True, metavar="NAME", help="The hold's name, by which it is released.")
@click.option("--reason", required=True, metavar="TEXT", help="Why it must not be deleted.")
@click.option("--owner", metavar="WHO", help="Who answers for it.  [default: the present user]")
@click.option("--until", metavar="TIME", help="A date (that day included) or an instant (RFC 3339).")
@click.option("--for", "lasting", metavar="DURATION", help="How long from now: 90d, 2w, 12h.")
@click.option("--until-released", is_flag=True, help="No expiry.")
@repository_option
def hold(
    session: Session,
    snapshot: str,
    name: str,
    reason: str,
    owner: str | None,
    until: str | None,
    lasting: str | None,
    until_released: bool,
    repository: str | None,
) -> None:
    """Keep retention from deleting SNAPSHOT, named by the beginning of its id.

    The snapshot gets a new id; it is found by the one it had before as well."""
    from drctl.domain.snapshot_facts import Hold
    from drctl.repository.keys import username
    from drctl.workflows import hold as holding

    wiring = session.wiring()
    expires = _expiry(wiring, until, lasting, until_released=until_released)
    spec = wiring.repository_spec(repository)
    held = Hold(name, reason, owner or username(), expires)
    stored = holding.hold(wiring.repository(spec), snapshot, held, session.clock)
    _show(session, "held", stored, spec.name, f"snapshot {short_id(stored)}: {held}")
    if len(wiring.plan.repositories) > 1:
        session.out.note(f"a copy of it in another repository than {spec.name} is not held")


@command(examples=(("drctl snapshot release 1a2b3c4d --name legal", "retention may delete it again"),))
@click.argument("snapshot")
@click.option("--name", required=True, metavar="NAME", help="Which hold.")
@repository_option
def release(session: Session, snapshot: str, name: str, repository: str | None) -> None:
    """Take the hold of this name off SNAPSHOT, named by the beginning of its id."""
    from drctl.workflows import hold as holding

    wiring = session.wiring()
    spec = wiring.repository_spec(repository)
    stored = holding.release(wiring.repository(spec), snapshot, name, session.clock)
    _show(session, "released", stored, spec.name, f"snapshot {short_id(stored)}: released from {name}")


def _show(session: Session, kind: str, snapshot: Snapshot, repository: str, text: str) -> None:
    session.out.record(kind, snapshot_fields(snapshot, repository), text)


def _expiry(
    wiring: Wiring, until: str | None, lasting: str | None, *, until_released: bool
) -> datetime | None:
    from drctl.domain.units import parse_duration

    if [until is not None, lasting is not None, until_released].count(True) != 1:
        raise UsageError("how long is it held?", hint="give one of --until, --for and --until-released")
    if lasting is not None:
        return wiring.clock.now() + parse_duration(lasting)
    return None if until is None else _instant(until, wiring.plan.time_zone)


def _instant(text: str, time_zone: str) -> datetime:
    """A day ends at its midnight in the plan's zone; so does a time without an offset lie in it."""
    from drctl.domain.calendar_buckets import zone_named

    try:
        moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise UsageError(
            f"not a date or an instant: {text!r}", hint="write 2027-03-31 or 2027-03-31T12:00:00Z"
        ) from exc
    zone = zone_named(time_zone)
    if len(text) == len("2027-03-31"):
        return datetime.combine(moment.date() + timedelta(days=1), time(), zone)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)
