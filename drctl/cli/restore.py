"""`drctl restore`: get data back, whole, by path or as it was at an instant.

Invariant: a target that is not empty is only touched when a flag says how and somebody confirmed what
was shown; exit code 0 means that the target is as the snapshot has it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from drctl.cli.command import command, repository_option, yes_option
from drctl.cli.instant import read_instant
from drctl.cli.session import Session
from drctl.cli.snapshot_view import short_id
from drctl.cli.table import show_instant
from drctl.domain.units import show_size
from drctl.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from drctl.domain.plan import RepositorySpec
    from drctl.repository.extract_plan import Failure
    from drctl.wiring import Wiring
    from drctl.workflows.restore import RestorePreview, RestoreReport, RestoreRequest


@dataclass(frozen=True, slots=True)
class Wanted:
    """The command line's options, as they were given."""

    target: str
    snapshot: str
    at: str | None
    service: str | None
    source: str | None
    paths: Sequence[str]
    root: str
    include: Sequence[str]
    exclude: Sequence[str]
    in_place: bool
    delta: bool
    delete: bool
    sparse: bool
    no_owner: bool
    no_privileges: bool
    verify: bool
    no_lock: bool


@command(
    examples=(
        ("drctl restore latest --target /tmp/back", "the newest complete snapshot, into an empty directory"),
        ("drctl restore 1a2b3c4d -t /tmp/back --path /etc/ssh", "one directory of one snapshot"),
        ('drctl restore --at "2026-11-21 18:00" -s shop -t /tmp/back', "as it was then"),
        ("drctl restore latest -t /srv --root /srv --delta --verify", "mend a tree in place"),
    )
)
@click.argument("snapshot", default="latest")
@click.option(
    "--target", "-t", required=True, metavar="DIR", help="Where it is restored to: an empty directory."
)
@click.option("--at", metavar="TIME", help="The newest snapshot at or before TIME, in the plan's time zone.")
@click.option("--service", "-s", metavar="NAME", help="Only snapshots of this service.")
@click.option("--source", metavar="NAME", help="Only snapshots of this source.")
@click.option(
    "--path", "paths", multiple=True, metavar="PATH", help="Only this file or directory. Repeatable."
)
@click.option(
    "--root", default="/", metavar="PATH", help="The directory of the snapshot that becomes DIR itself."
)
@click.option("--include", multiple=True, metavar="PATTERN", help="Only what matches, as in .gitignore.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Not what matches, as in .gitignore.")
@click.option("--in-place", is_flag=True, help="DIR may hold files: those of the snapshot are written anew.")
@click.option("--delta", is_flag=True, help="DIR may hold files: only what differs is written.")
@click.option("--delete", is_flag=True, help="With --in-place or --delta: delete what the snapshot lacks.")
@click.option("--sparse", is_flag=True, help="Make holes of long runs of zeros.")
@click.option("--no-owner", is_flag=True, help="Leave the files to whoever restores.")
@click.option("--no-privileges", is_flag=True, help="No setuid, setgid, capabilities and device nodes.")
@click.option("--verify", is_flag=True, help="Read it all again afterwards and compare.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--no-lock", is_flag=True, help="Take no lock: for storages that only let us read.")
@repository_option
@yes_option
def restore(
    session: Session, /, repository: str | None, dry_run: bool, yes: bool, **options: Any
) -> ExitCode:
    """Restore SNAPSHOT into DIR. SNAPSHOT is the beginning of an id, or `latest`: the newest complete one.

    Files lie below DIR as they lay below / of the machine: DIR/etc/hosts. --root changes that."""
    from drctl.workflows.restore import preview_restore, run_restore

    wanted = Wanted(**options)
    wiring = session.wiring()
    spec = _repository_of(wiring, repository, wanted.service)
    request = _request(wanted, wiring)
    opened = wiring.repository(spec)
    with session.progress() as emit:
        if dry_run or wanted.in_place or wanted.delta:
            preview = preview_restore(opened, request, session.clock, emit)
            _show_preview(session, preview, request)
            if dry_run:
                return ExitCode.OK
            _confirm(session, preview, request, yes=yes)
        report = run_restore(opened, request, session.clock, emit, lambda: None)
    return _show_report(session, report, spec.name)


def _repository_of(wiring: Wiring, name: str | None, service: str | None) -> RepositorySpec:
    if name is None and service is not None:
        name = wiring.service(service).repositories[0]
    return wiring.repository_spec(name)


def _request(wanted: Wanted, wiring: Wiring) -> RestoreRequest:
    from drctl.repository.extract import RestoreOptions
    from drctl.repository.extract_target import Existing
    from drctl.repository.selection import Selection
    from drctl.workflows.restore import Newest, RestoreRequest

    if wanted.in_place and wanted.delta:
        raise UsageError(
            "--in-place and --delta exclude each other", hint="--delta writes less, and ends the same"
        )
    if wanted.delete and not (wanted.in_place or wanted.delta):
        raise UsageError(
            "--delete needs --in-place or --delta", hint="an empty directory has nothing to delete"
        )
    if wanted.at is not None and wanted.snapshot != "latest":
        raise UsageError("either a SNAPSHOT or --at TIME, not both")
    existing = Existing.REUSE if wanted.delta else Existing.REPLACE if wanted.in_place else Existing.REFUSE
    instant = None if wanted.at is None else read_instant(wanted.at, wiring.plan.time_zone)
    return RestoreRequest(
        target=os.path.abspath(wanted.target),
        choice=instant or (Newest.LATEST if wanted.snapshot == "latest" else wanted.snapshot),
        service=wanted.service,
        source_name=wanted.source,
        selection=Selection(
            tuple(os.fsencode(path) for path in wanted.paths),
            tuple(wanted.include),
            tuple(wanted.exclude),
            os.fsencode(wanted.root),
        ),
        options=RestoreOptions(
            existing, wanted.delete, wanted.sparse, not wanted.no_owner, not wanted.no_privileges
        ),
        verify=wanted.verify,
        take_lock=not wanted.no_lock,
    )


def _show_preview(session: Session, preview: RestorePreview, request: RestoreRequest) -> None:
    plan = preview.plan
    fields = {
        "snapshot": short_id(preview.snapshot),
        "target": request.target,
        "files": plan.files,
        "bytes": plan.bytes,
        "bytes_kept": plan.bytes_kept,
        "deletions": len(plan.deletions),
    }
    session.out.record(
        "restore_plan",
        fields,
        f"snapshot {fields['snapshot']} of {show_instant(preview.snapshot.time)} into {request.target}:",
        f"  restore {plan.files:,} files, {show_size(plan.bytes)}",
        f"  keep {show_size(plan.bytes_kept)} that are there already",
        f"  delete {len(plan.deletions):,} entries",
    )
    for deletion in plan.deletions:
        session.out.record(
            "deletion",
            {"name": deletion.name, "reason": deletion.reason},
            *([f"  delete {os.fsdecode(deletion.name)}: {deletion.reason}"] if session.out.verbose else []),
        )
    _show_failures(session, plan.failures)


def _confirm(session: Session, preview: RestorePreview, request: RestoreRequest, *, yes: bool) -> None:
    act = f"overwrite files in {request.target}"
    if preview.plan.deletions:
        act += f" and delete {len(preview.plan.deletions)} entries"
    session.confirm(act, os.path.basename(request.target) or request.target, yes=yes)


def _show_report(session: Session, report: RestoreReport, repository: str) -> ExitCode:
    _show_failures(session, report.failures)
    fields = {
        "snapshot": report.snapshot.id.hex() if report.snapshot.id else None,
        "repository": repository,
        "target": report.target,
        "files": report.files,
        "directories": report.directories,
        "others": report.others,
        "bytes": report.bytes,
        "bytes_written": report.bytes_written,
        "bytes_kept": report.bytes_kept,
        "deleted": report.deleted,
        "failures": len(report.failures),
        "verified": report.verified,
        "started": report.started,
        "duration_s": report.duration.total_seconds(),
    }
    checked = {True: ", verified", False: ", NOT as stored", None: ""}[report.verified]
    session.out.summary(
        fields,
        f"restored snapshot {short_id(report.snapshot)} into {report.target}: "
        f"{report.files:,} files, {show_size(report.bytes)}{checked}",
    )
    error = report.error()
    if error is not None:
        raise error
    return ExitCode.OK


def _show_failures(session: Session, failures: Sequence[Failure]) -> None:
    session.out.problems(
        [
            ({"path": one.path, "reason": one.message, "exit_code": one.exit_code}, one.describe())
            for one in failures
        ]
    )
