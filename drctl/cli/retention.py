"""`drctl retention`: what is deleted, why and since when it was due; and doing it.

Invariant: `plan` changes nothing; `apply` deletes what it has just shown, once no brake is engaged
and somebody confirmed it. A service that is refused keeps no other from being served.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import click

from drctl.cli.command import command, repository_option, yes_option
from drctl.cli.instant import read_instant
from drctl.cli.session import Session
from drctl.cli.table import Column
from drctl.errors import DrctlError, ExitCode, UsageError

if TYPE_CHECKING:
    from drctl.domain.brakes import BrakeName
    from drctl.domain.plan import Service
    from drctl.domain.retention import Verdict
    from drctl.repository.repo import Repository
    from drctl.wiring import Wiring
    from drctl.workflows.forget import ForgetPlan

COLUMNS = (
    Column("short_id", "ID"),
    Column("received", "Received"),
    Column("repository", "Repository"),
    Column("service", "Service"),
    Column("source", "Source"),
    Column("hostname", "Host"),
    Column("keep", "Kept"),
    Column("due_since", "Due since"),
    Column("reasons", "Why", show="; ".join),
)


@dataclass(frozen=True, slots=True)
class _Target:
    """A service in one of its repositories, judged."""

    service: str
    repository_name: str
    repository: Repository
    plan: ForgetPlan

    def rows(self, verdicts: Sequence[Verdict]) -> list[dict[str, object]]:
        return [_fields(verdict, self.repository_name) for verdict in verdicts]


@command(
    examples=(
        ("drctl retention plan", "every service: what stays, what would go, and why"),
        ("drctl retention plan --at 2027-01-31", "what would go then, if nothing came in between"),
        ("drctl retention plan shop --output json", "one object per snapshot, for programs"),
    )
)
@click.argument("services", metavar="[SERVICE]...", nargs=-1)
@repository_option
@click.option("--at", metavar="TIME", help="As of TIME, in the plan's time zone.  [default: now]")
def plan(session: Session, services: Sequence[str], repository: str | None, at: str | None) -> None:
    """Show which snapshots of SERVICEs (or of all) are kept or not, why, and since when they are due.

    Changes nothing. What would stop `retention apply` is shown as a warning."""
    wiring = session.wiring()
    now = wiring.clock.now() if at is None else read_instant(at, wiring.plan.time_zone)
    kept = going = brakes = 0
    for target in _judged(wiring, services, repository, now):
        judgement = target.plan.judgement
        session.out.table("verdict", COLUMNS, target.rows(judgement.verdicts))
        _show_brakes(session, target)
        kept, going = kept + len(judgement.kept), going + len(judgement.going)
        brakes += len(judgement.brakes)
    session.out.summary(
        {"kept": kept, "going": going, "brakes": brakes}, f"{kept} kept, {going} to go, {brakes} brakes"
    )


@command(
    examples=(
        ("drctl retention apply", "show what goes, ask, delete"),
        ("drctl retention apply shop --yes", "without asking, from a timer"),
        ("drctl retention apply shop --override mass-deletion='first run'", "past one brake, with a reason"),
    )
)
@click.argument("services", metavar="[SERVICE]...", nargs=-1)
@repository_option
@click.option(
    "--override",
    "overrides",
    multiple=True,
    metavar="BRAKE=REASON",
    help="Go on although this brake is engaged, for the reason given. Repeatable.",
)
@yes_option
def apply(
    session: Session,
    services: Sequence[str],
    repository: str | None,
    overrides: Sequence[str],
    yes: bool,
) -> ExitCode:
    """Delete the snapshots of SERVICEs (or of all) that retention lets go.

    Shows them first. A brake (a clock that jumped, an empty or misspelt service, an edited policy, a
    mass deletion) stops it with exit code 40. The bytes go with `drctl repo prune`."""
    named = _overrides(overrides)
    codes: list[ExitCode] = []
    forgotten = 0
    for target in _judged(session.wiring(), services, repository, session.clock.now()):
        try:
            forgotten += _forget(session, target, named, yes=yes)
        except DrctlError as exc:
            session.out.failure(f"{target.service} in {target.repository_name}: {exc.message}", exc.hint)
            codes.append(exc.exit_code)
    session.out.summary({"forgotten": forgotten, "failed": len(codes)}, f"{forgotten} snapshots forgotten")
    return codes[0] if codes else ExitCode.OK


def _judged(
    wiring: Wiring, services: Sequence[str], repository: str | None, now: datetime
) -> Iterator[_Target]:
    from drctl.domain.retention import Group
    from drctl.workflows.forget import ForgetRequest, plan_forget

    for service, name in _places(wiring, services, repository):
        opened = wiring.repository(wiring.repository_spec(name))
        request = ForgetRequest(
            service.name,
            wiring.plan.policies[service.policy].retention,
            wiring.plan.time_zone,
            tuple(Group(service.name, source.name, source.host) for source in service.sources.values()),
        )
        judged = plan_forget(opened, request, now)
        yield _Target(service.name, name, opened, judged)


def _places(wiring: Wiring, services: Sequence[str], repository: str | None) -> Iterator[tuple[Service, str]]:
    if repository is not None:
        wiring.repository_spec(repository)
    chosen = [wiring.service(name) for name in services or wiring.plan.services]
    places = [
        (service, name)
        for service in chosen
        for name in service.repositories
        if repository is None or name == repository
    ]
    if not places:
        raise UsageError(
            f"none of these services keeps anything in {repository}", hint="see: drctl plan show"
        )
    yield from places


def _forget(session: Session, target: _Target, overrides: dict[BrakeName, str], *, yes: bool) -> int:
    from drctl.workflows.forget import apply_forget, refuse_braked

    judgement = target.plan.judgement
    if judgement.going:  # a timer would mail an empty table every night
        session.out.table("verdict", COLUMNS, target.rows(judgement.going))
    refuse_braked(judgement, overrides)
    if not judgement.going:
        return 0
    act = f"delete {len(judgement.going)} snapshots of {target.service} in {target.repository_name}"
    session.confirm(act, target.service, yes=yes)
    with session.progress() as emit:
        report = apply_forget(target.repository, target.plan, session.clock, emit, lambda: None, overrides)
    for facts in report.forgotten:
        session.out.record("forgotten", {"id": facts.id, "repository": target.repository_name})
    for name, reason in report.overridden.items():
        session.out.record("overridden", {"brake": name, "reason": reason})
    return len(report.forgotten)


def _show_brakes(session: Session, target: _Target) -> None:
    for brake in target.plan.judgement.brakes:
        fields = {"brake": brake.name, "reason": brake.reason, "repository": target.repository_name}
        session.out.record("brake", {**fields, "service": target.service})
        session.out.warning(f"brake {brake.name.value}: {brake.reason}")


def _overrides(texts: Sequence[str]) -> dict[BrakeName, str]:
    from drctl.domain.brakes import BrakeName

    known = {name.value: name for name in BrakeName}
    overrides = {}
    for text in texts:
        name, _, reason = text.partition("=")
        if name not in known:
            raise UsageError(f"no brake {name!r}", hint=f"there are: {', '.join(known)}")
        if not reason.strip():
            raise UsageError(
                f"no reason given for overriding {name}", hint=f"write --override {name}='why it is right'"
            )
        overrides[known[name]] = reason.strip()
    return overrides


def _fields(verdict: Verdict, repository: str) -> dict[str, object]:
    facts = verdict.snapshot
    return {
        "id": facts.id,
        "short_id": facts.short_id,
        "repository": repository,
        "service": facts.group.service,
        "source": facts.group.source,
        "hostname": facts.group.host,
        "time": facts.time,
        "received": facts.received,
        "keep": verdict.keep,
        "due_since": verdict.due_since,
        "reasons": verdict.reasons,
    }
