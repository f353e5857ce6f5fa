"""`drctl plan`: is the plan right, what does it say, and what may stand in it.

Invariant: nothing but files is read here; no host, storage or repository is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

import click

from drctl.cli.command import command
from drctl.cli.output import Format
from drctl.cli.session import Session
from drctl.cli.table import Column

if TYPE_CHECKING:
    from drctl.domain.plan import Plan


@command(
    examples=(
        ("drctl plan validate", "check ./drctl.yaml and the policies it names"),
        ("drctl -p /etc/drctl/drctl.yaml plan validate", "check another one, in CI for example"),
    )
)
def validate(session: Session) -> None:
    """Check the plan file, what it includes and the policies it names.

    Every problem is told at once, each as FILE:LINE:COLUMN with a hint. Ends with 2 when there is one."""
    plan = _load(session)
    counts = {
        "services": len(plan.services),
        "sources": sum(len(service.sources) for service in plan.services.values()),
        "repositories": len(plan.repositories),
        "policies": len(plan.policies),
    }
    told = ", ".join(f"{count} {name if count != 1 else _singular(name)}" for name, count in counts.items())
    session.out.summary({"file": plan.file, **counts}, f"{plan.file} is valid: {told}")


@command(examples=(("drctl plan show", "services, sources, repositories, policies and objectives"),))
def show(session: Session) -> None:
    """Show what the plan says once includes, environment, policies and defaults are resolved.

    Secrets are never part of a plan; shown is the place each one comes from."""
    plan = _load(session)
    fields_shown = ("file", "organisation", "time_zone", "calendar")
    session.out.record("plan", {name: getattr(plan, name) for name in fields_shown})
    for name in fields_shown:
        session.out.line(f"{name.replace('_', ' ').capitalize():13} {getattr(plan, name) or '-'}")
    for section in _SECTIONS:
        session.out.line("")
        session.out.table(section.kind, _columns(section.columns), section.rows(plan))


@command(
    examples=(
        ("drctl plan schema > drctl.schema.json", "for an editor that completes and checks while you type"),
        ("drctl plan schema --of policy", "the schema of policies/NAME.yaml"),
    )
)
@click.option(
    "--of",
    "what",
    type=click.Choice(["plan", "policy"]),
    default="plan",
    show_default=True,
    help="Which file.",
)
def schema(session: Session, what: str) -> None:
    """Print the JSON Schema (2020-12) of the plan file, with every kind of source and storage there is.

    Put `# yaml-language-server: $schema=drctl.schema.json` on the first line of drctl.yaml to use it."""
    import json

    from drctl.planfile.schema import plan_schema, policy_schema
    from drctl.wiring import source_options, storage_options

    made = plan_schema(source_options(), storage_options()) if what == "plan" else policy_schema()
    if session.out.format is Format.JSON:
        session.out.record("schema", {"schema": made})
    else:
        session.out.document(json.dumps(made, indent=2))


def _load(session: Session) -> Plan:
    from drctl.wiring import load_plan

    return load_plan(session.plan_file(), session.environment)


def _singular(name: str) -> str:
    return name[:-3] + "y" if name.endswith("ies") else name[:-1]


Row = dict[str, object]


def _repositories(plan: Plan) -> Iterator[Row]:
    for spec in plan.repositories.values():
        yield {**_row(spec, "storage"), "kind": spec.storage.kind, "options": spec.storage.options}


def _services(plan: Plan) -> Iterator[Row]:
    for service in plan.services.values():
        yield _row(service, "sources", "objectives")


def _sources(plan: Plan) -> Iterator[Row]:
    for service in plan.services.values():
        for source in service.sources.values():
            yield {"source": f"{service.name}/{source.name}", "service": service.name, **_row(source)}


def _policies(plan: Plan) -> Iterator[Row]:
    for policy in plan.policies.values():
        row = {**_row(policy.schedule), **_row(policy.retention), **_row(policy, "schedule", "retention")}
        row["tested"] = policy.restore_test.schedule if policy.restore_test else None
        del row["objectives"]  # they come by service, which may have its own
        yield row


def _objectives(plan: Plan) -> Iterator[Row]:
    for service in plan.services.values():
        for disaster_class, objective in plan.objectives_of(service).items():
            yield {"service": service.name, "disaster_class": disaster_class, **_row(objective)}


class Section(NamedTuple):
    """One table: its JSON `message_type`, `TITLE key` of each column, its rows."""

    kind: str
    columns: tuple[str, ...]
    rows: Callable[[Plan], Iterator[Row]]


_SECTIONS = (
    Section("site", ("SITE name", "DESCRIPTION description", "REGION region"), lambda p: _rows(p.sites)),
    Section("host", ("HOST name", "SITE site", "ADDRESS address", "USER user"), lambda p: _rows(p.hosts)),
    Section(
        "repository",
        ("REPOSITORY name", "SITE site", "KIND kind", "STORAGE options", "KEY key", "CHUNKER chunker"),
        _repositories,
    ),
    Section(
        "service",
        ("SERVICE name", "POLICY policy", "OWNER owner", "TENANT tenant", "REPOSITORIES repositories"),
        _services,
    ),
    Section("source", ("SOURCE source", "KIND kind", "HOST host", "WHAT options"), _sources),
    Section(
        "policy",
        (
            "POLICY name",
            "FULL full",
            "INCREMENTAL incremental",
            "CONTINUOUS continuous",
            "KEEP AT LEAST keep_at_least",
            "GONE BY gone_by",
            "RESTORE TEST tested",
        ),
        _policies,
    ),
    Section(
        "objective",
        (
            "SERVICE service",
            "DISASTER disaster_class",
            "RPO rpo",
            "MAX LOSS max_loss",
            "RTO rto",
            "RTO WITHOUT excluded_phases",
        ),
        _objectives,
    ),
)


def _columns(titles_and_keys: Iterable[str]) -> tuple[Column, ...]:
    split = (text.rpartition(" ") for text in titles_and_keys)
    return tuple(Column(key, title, show=_shown) for title, _, key in split)


def _rows(named: Mapping[str, object]) -> Iterator[Row]:
    return (_row(value) for value in named.values())


def _row(value: object, *without: str) -> Row:
    assert is_dataclass(value)
    return {field.name: getattr(value, field.name) for field in fields(value) if field.name not in without}


def _shown(value: object) -> str:
    """One value for people: what differs from the default, in the plan's own spelling."""
    from drctl.domain.units import show_duration

    match value:
        case timedelta():
            return show_duration(value)
        case Enum():
            return str(value.value)
        case bool():
            return "yes" if value else "no"
        case tuple() | list():
            return ", ".join(map(_shown, value)) or "-"
    if not is_dataclass(value):
        return str(value) or "-"
    said = [
        f"{field.name} {_shown(given)}"
        for field in fields(value)
        if (given := getattr(value, field.name)) != _default(field.default)
    ]
    return "; ".join(said) or "-"


def _default(default: object) -> object:
    return () if default is MISSING else default
