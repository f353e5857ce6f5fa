"""`drctl backup`: take backups and look into them.

Invariant: one source that fails keeps no other from being backed up; the exit code tells of the worst.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from drctl.cli.command import command, repository_option
from drctl.cli.session import Session
from drctl.cli.snapshot_view import (
    COLUMNS,
    describe,
    entry_fields,
    entry_line,
    oldest_first,
    short_id,
    snapshot_fields,
)
from drctl.domain.units import show_size
from drctl.errors import DrctlError, ExitCode, UsageError

if TYPE_CHECKING:
    from drctl.domain.events import Emit
    from drctl.domain.plan import Service, SourceSpec
    from drctl.repository.tree import Node
    from drctl.wiring import Wiring
    from drctl.workflows.backup import BackupReport

DIFF_SIGNS = {"added": "+", "removed": "-", "content": "M", "replaced": "T", "metadata": "U"}


@command(
    examples=(
        ("drctl backup run", "every service, trusting unchanged metadata"),
        ("drctl backup run shop --full", "read every byte of one service again"),
    )
)
@click.argument("services", metavar="[SERVICE]...", nargs=-1)
@click.option("--full", is_flag=True, help="Read every byte again instead of trusting unchanged metadata.")
@click.option(
    "--source", "sources", multiple=True, metavar="NAME", help="Only sources of this name. Repeatable."
)
@click.option("--tag", "tags", multiple=True, metavar="TEXT", help="A tag for the snapshots. Repeatable.")
def run(
    session: Session, services: Sequence[str], full: bool, sources: Sequence[str], tags: Sequence[str]
) -> ExitCode:
    """Back up SERVICEs, or every service of the plan, each into its first repository.

    Exits with 3 when something of a source could not be read: the snapshot is there, without it."""
    wiring = session.wiring()
    codes: list[ExitCode] = []
    with session.progress() as emit:
        for service, source in _chosen(wiring, services, sources):
            try:
                report = _back_up(wiring, service, source, emit, full=full, tags=tuple(tags))
            except DrctlError as exc:
                session.out.failure(f"{service.name}/{source.name}: {exc.message}", exc.hint)
                codes.append(exc.exit_code)
                continue
            _show_report(session, service, source, report)
            codes.append(report.exit_code)
    failed = [code for code in codes if code not in (ExitCode.OK, ExitCode.INCOMPLETE)]
    session.out.summary({"sources": len(codes), "failed": len(failed)})
    return failed[0] if failed else max([ExitCode.OK, *codes])


@command(name="list", examples=(("drctl backup list shop", "the snapshots of one service"),))
@click.argument("services", metavar="[SERVICE]...", nargs=-1)
@repository_option
def list_(session: Session, services: Sequence[str], repository: str | None) -> None:
    """List snapshots, the newest last: those of SERVICEs, or all there are."""
    wiring = session.wiring()
    for name in services:
        wiring.service(name)
    rows = []
    names = [repository] if repository else list(wiring.plan.repositories)
    for name in names:
        spec = wiring.repository_spec(name)
        found = oldest_first(wiring.repository(spec).snapshots())
        rows += [snapshot_fields(one, spec.name) for one in found if not services or one.service in services]
    session.out.table("snapshot", COLUMNS, rows)
    session.out.summary({"snapshots": len(rows)})


@command(
    examples=(
        ("drctl backup show 1a2b3c4d", "everything known about one snapshot"),
        ("drctl backup show 1a2b3c4d --files --below /etc", "what it has of one directory"),
    )
)
@click.argument("snapshot")
@click.option("--files", is_flag=True, help="List what is in it.")
@click.option("--below", default="/", metavar="PATH", help="With --files: only at and below PATH.")
@repository_option
def show(session: Session, snapshot: str, files: bool, below: str, repository: str | None) -> None:
    """Show one SNAPSHOT, named by the beginning of its id."""
    from drctl.workflows.browse import list_entries

    wiring = session.wiring()
    spec = wiring.repository_spec(repository)
    opened = wiring.repository(spec)
    found = opened.find_snapshot(snapshot)
    if not files:
        session.out.record("snapshot", snapshot_fields(found, spec.name), *describe(found, spec.name))
        return
    opened.load_index()
    for path, node in list_entries(opened, found, os.fsencode(below)):
        session.out.record("entry", {"path": path, **entry_fields(node)}, entry_line(path, node))


@command(examples=(("drctl backup diff 1a2b3c4d 5e6f7a8b", "what changed from the first to the second"),))
@click.argument("older")
@click.argument("newer")
@click.option(
    "--metadata", is_flag=True, help="Also entries of which only mode, owner, time or attributes differ."
)
@repository_option
def diff(session: Session, older: str, newer: str, metadata: bool, repository: str | None) -> None:
    """Show what differs between two snapshots.

    + added, - removed, M content, T replaced by another type, U metadata only."""
    from drctl.workflows.browse import Kind, compare_snapshots

    wiring = session.wiring()
    opened = wiring.repository(wiring.repository_spec(repository))
    snapshots = opened.find_snapshot(older), opened.find_snapshot(newer)
    opened.load_index()
    counts = dict.fromkeys(Kind, 0)
    for one in compare_snapshots(opened, *snapshots):
        counts[one.kind] += 1
        if one.kind is not Kind.METADATA or metadata:
            fields = {
                "path": one.path,
                "kind": one.kind,
                "size_before": _size(one.before),
                "size_after": _size(one.after),
            }
            session.out.record("difference", fields, f"{DIFF_SIGNS[one.kind.value]}  {os.fsdecode(one.path)}")
    told = ", ".join(f"{count:,} {kind.value}" for kind, count in counts.items())
    session.out.summary({kind.value: count for kind, count in counts.items()}, told)


def _size(node: Node | None) -> int | None:
    return node.size if node is not None else None


def _chosen(
    wiring: Wiring, services: Sequence[str], sources: Sequence[str]
) -> Iterator[tuple[Service, SourceSpec]]:
    chosen = [
        (service, source)
        for service in (wiring.service(name) for name in services or wiring.plan.services)
        for source in service.sources.values()
        if not sources or source.name in sources
    ]
    if not chosen:
        raise UsageError(
            f"no source named {' or '.join(sources)} in these services", hint="see: drctl plan show"
        )
    yield from chosen


def _back_up(
    wiring: Wiring, service: Service, source: SourceSpec, emit: Emit, *, full: bool, tags: tuple[str, ...]
) -> BackupReport:
    from drctl.workflows.backup import BackupRequest, run_backup
    from drctl.workflows.forget import policy_tag

    spec = wiring.repository_spec(service.repositories[0])
    retention = wiring.plan.policies[service.policy].retention
    tags = (*tags, policy_tag(retention, wiring.plan.time_zone))
    request = BackupRequest(service.name, source.name, source.host, full, spec.chunker, tags)
    repository = wiring.repository(spec)
    # Ctrl-C and SIGTERM arrive as KeyboardInterrupt, so nothing else has to ask for a stop
    return run_backup(
        repository, wiring.source(source), request, wiring.clock, emit, lambda: None, wiring.cache()
    )


def _show_report(session: Session, service: Service, source: SourceSpec, report: BackupReport) -> None:
    counts = report.counts
    session.out.problems(
        [
            (
                {"path": one.path, "trouble": one.trouble, "reason": one.reason},
                f"{one.trouble.value}: {os.fsdecode(one.path)}: {one.reason}",
            )
            for one in report.problems
        ]
    )
    session.out.record(
        "backup",
        {**snapshot_fields(report.snapshot, service.repositories[0]), "problems": len(report.problems)},
        f"{service.name}/{source.name}: snapshot {short_id(report.snapshot)}, {report.snapshot.mode}, "
        f"{counts.files:,} files, {show_size(counts.bytes)}, "
        f"{show_size(counts.bytes_added)} new ({show_size(counts.bytes_stored)} stored)",
    )
