"""`drctl repo prune`: remove the bytes that no snapshot needs.

Invariant: the plan that is shown and confirmed is the plan that is carried out, under one lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from drctl.cli.command import command, name_argument, yes_option
from drctl.cli.session import Session
from drctl.cli.table import Column
from drctl.domain.units import show_size

if TYPE_CHECKING:
    from drctl.repository.prune import PackVerdict, PrunePlan
    from drctl.repository.repack import PruneResult

COLUMNS = (
    Column("short_id", "Pack"),
    Column("fate", "What is done"),
    Column("size", "Size", show_size, right=True),
    Column("freed", "Freed", show_size, right=True),
    Column("reason", "Why"),
)


@command(
    examples=(
        ("drctl repo prune --dry-run", "what would be removed and rewritten, and why"),
        ("drctl repo prune --yes", "do it; up to 5% of unneeded data may stay"),
        ("drctl repo prune --max-unused 0 --yes", "leave no byte that no snapshot needs: proof of deletion"),
    )
)
@name_argument
@click.option(
    "--max-unused", default="5%", show_default=True, metavar="LIMIT", help="What may stay: 5%, 500MiB or 0."
)
@click.option("--dry-run", is_flag=True, help="Show the plan, and do nothing.")
@click.option("--remove-everything", is_flag=True, help="Even when no snapshot is left at all.")
@yes_option
def prune(
    session: Session, name: str | None, max_unused: str, dry_run: bool, remove_everything: bool, yes: bool
) -> None:
    """Remove from repository NAME what no snapshot needs, and rewrite packs that hold too much of it.

    The repository is locked for us alone meanwhile. Packs that are all needed are left alone."""
    from drctl.repository.prune import parse_unused_limit
    from drctl.workflows.prune import run_prune

    limit = parse_unused_limit(max_unused)
    wiring = session.wiring()
    spec = wiring.repository_spec(name)

    def approve(plan: PrunePlan) -> bool:
        _show_plan(session, spec.name, plan)
        if not dry_run:
            session.confirm(f"remove {show_size(plan.freed_bytes)} from {spec.name}", spec.name, yes=yes)
        return not dry_run

    with session.progress() as emit:
        report = run_prune(
            wiring.repository(spec), limit, approve, session.clock, emit, remove_everything=remove_everything
        )
    _show_result(session, spec.name, report.plan, report.result)


def _show_plan(session: Session, repository: str, plan: PrunePlan) -> None:
    from drctl.repository.prune import Fate

    rows = [_row(verdict) for verdict in plan.packs(Fate.REMOVE, Fate.REPACK, Fate.DROP)]
    session.out.table("pack", COLUMNS, rows)
    fields = {
        "repository": repository,
        "freed_bytes": plan.freed_bytes,
        "repacked_bytes": plan.repacked_bytes,
        "unused_before": plan.unused_before,
        "unused_after": plan.unused_after,
        "proves_absence": plan.proves_absence,
    }
    session.out.record(
        "prune_plan",
        fields,
        f"{repository}: frees {show_size(plan.freed_bytes)}, rewrites {show_size(plan.repacked_bytes)}, "
        f"leaves {show_size(plan.unused_after)} unneeded",
    )


def _row(verdict: PackVerdict) -> dict[str, object]:
    return {
        "id": verdict.id.hex(),
        "short_id": verdict.id.hex()[:8],
        "fate": verdict.fate,
        "size": verdict.size,
        "freed": verdict.freed,
        "reason": verdict.reason,
    }


def _show_result(session: Session, repository: str, plan: PrunePlan, result: PruneResult | None) -> None:
    if result is None:
        done = "nothing to do" if plan.is_empty else "nothing was changed"
        session.out.summary({"repository": repository, "pruned": False}, f"{repository}: {done}")
        return
    fields = {
        "repository": repository,
        "pruned": True,
        "packs_written": result.packs_written,
        "packs_removed": result.packs_removed,
        "bytes_before": result.bytes_before,
        "bytes_after": result.bytes_after,
        "proves_absence": result.proves_absence,
    }
    proof = "; no byte is left that no snapshot needs" if result.proves_absence else ""
    sizes = f"{show_size(result.bytes_before)} before, {show_size(result.bytes_after)} now"
    session.out.summary(fields, f"{repository}: {sizes}{proof}")
