"""`drctl repo copy`: bring snapshots into the other repositories of their services.

Invariant: the targets are only added to; what is there already is not copied again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from drctl.cli.command import command
from drctl.cli.session import Session
from drctl.cli.snapshot_view import short_id, snapshot_fields
from drctl.domain.units import show_size
from drctl.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from drctl.domain.plan import RepositorySpec
    from drctl.repository.repo import Repository
    from drctl.repository.snapshot import Snapshot
    from drctl.wiring import Wiring
    from drctl.workflows.replicate import CopyReport

Pair = tuple[str, str]


@command(
    examples=(
        ("drctl repo copy", "every service: from its first repository into its others"),
        ("drctl repo copy 1a2b3c4d --from main --to offsite", "one snapshot"),
    )
)
@click.argument("snapshots", metavar="[SNAPSHOT]...", nargs=-1)
@click.option("--from", "source", metavar="NAME", help="The repository that is read.")
@click.option("--to", "target", metavar="NAME", help="The repository that is added to.")
@click.option("--no-lock-source", is_flag=True, help="Take no lock on the source: it may only be read.")
def copy(
    session: Session, snapshots: Sequence[str], source: str | None, target: str | None, no_lock_source: bool
) -> ExitCode:
    """Copy SNAPSHOTs, or all that the target lacks, from one repository into another.

    Without --from and --to: for every service of the plan, as its `repositories` say."""
    from drctl.workflows.replicate import run_copy

    wiring = session.wiring()
    codes = [ExitCode.OK]
    for pair in _pairs(wiring, snapshots, source, target):
        specs = wiring.repository_spec(pair[0]), wiring.repository_spec(pair[1])
        first, second = (wiring.repository(spec) for spec in specs)
        wanted = _wanted(wiring, first, snapshots, None if source else pair)
        with session.progress() as emit:
            report = run_copy(first, second, wanted, session.clock, emit, lock_source=not no_lock_source)
        _show(session, specs, report)
        codes.append(report.exit_code)
    return max(codes)


def _wanted(
    wiring: Wiring, first: Repository, prefixes: Sequence[str], pair: Pair | None
) -> list[Snapshot] | None:
    """The snapshots named, or those of the services that the plan copies this way; None: all."""
    if prefixes:
        return [first.find_snapshot(prefix) for prefix in prefixes]
    if pair is None:
        return None
    services = {
        name
        for name, service in wiring.plan.services.items()
        if service.repositories[0] == pair[0] and pair[1] in service.repositories[1:]
    }
    return [snapshot for snapshot in first.snapshots() if snapshot.service in services]


def _pairs(wiring: Wiring, snapshots: Sequence[str], source: str | None, target: str | None) -> list[Pair]:
    if source and target:
        return [(source, target)]
    if source or target or snapshots:
        raise UsageError("from where to where?", hint="give both --from NAME and --to NAME")
    services = wiring.plan.services.values()
    pairs = [(one.repositories[0], other) for one in services for other in one.repositories[1:]]
    if not pairs:
        raise UsageError(
            "no service of the plan has a second repository", hint="name one in its repositories:"
        )
    return list(dict.fromkeys(pairs))


def _show(session: Session, specs: tuple[RepositorySpec, RepositorySpec], report: CopyReport) -> None:
    for one in report.copied:
        if one.copy is None:
            session.out.failure(f"snapshot {short_id(one.snapshot)}: {one.problem}")
            continue
        fields = {**snapshot_fields(one.copy, specs[1].name), "copy_of": short_id(one.snapshot)}
        line = f"{short_id(one.snapshot)} of {specs[0].name} is {short_id(one.copy)} in {specs[1].name}"
        session.out.record("copy", fields, line)
    there = sum(not verdict.is_missing for verdict in report.verdicts)
    copied = sum(one.copy is not None for one in report.copied)
    session.out.record(
        "copied",
        {
            "source": specs[0].name,
            "target": specs[1].name,
            "copied": copied,
            "present": there,
            "blobs": report.blobs,
            "bytes_stored": report.bytes,
        },
        f"{specs[0].name} to {specs[1].name}: {copied} copied ({show_size(report.bytes)}), {there} present",
    )
