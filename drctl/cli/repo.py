"""`drctl repo`: look after repositories.

Invariant: what deletes or locks somebody out shows what it will do, and acts only when confirmed.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import click

from drctl.cli.command import command, name_argument, yes_option
from drctl.cli.session import Session
from drctl.cli.table import Column
from drctl.domain.units import show_size
from drctl.errors import ExitCode

if TYPE_CHECKING:
    from drctl.repository.lock import LockRecord
    from drctl.repository.repo import Repository

LOCK_COLUMNS = (
    Column("hostname", "Host"),
    Column("username", "User"),
    Column("pid", "Process", right=True),
    Column("kind", "Lock"),
    Column("time", "Since"),
    Column("state", "State"),
)

SIZE_COLUMNS = (
    Column("short_id", "Snapshot"),
    Column("time", "Time"),
    Column("restore_bytes", "Restores to", show_size, right=True),
)
AMOUNT_COLUMNS = (
    Column("what", "What"),
    Column("count", "Count", right=True),
    Column("bytes", "Size", show_size, right=True),
)


@command(
    examples=(
        ("drctl repo init", "make the plan's repository, with the key that the plan names"),
        ("drctl repo init offsite --generate-key", "make its key file first; nothing is overwritten"),
    )
)
@name_argument
@click.option("--generate-key", is_flag=True, help="Make the key file that the plan names, first.")
def init(session: Session, name: str | None, generate_key: bool) -> None:
    """Make repository NAME of the plan; the name is not needed where the plan has one.

    A claim of append_only is proven by trying, and refused where the storage does not keep it."""
    from drctl.cli.new_file import generate_key_of
    from drctl.workflows.initialise import initialise

    wiring = session.wiring()
    spec = wiring.repository_spec(name)
    key = generate_key_of(spec) if generate_key else wiring.key(spec)
    storage = wiring.storage(spec)
    repository = initialise(storage, key, spec, session.clock)
    fields = {"repository": spec.name, "location": storage.location, "id": repository.config.id}
    session.out.record("repository", fields, f"made repository {spec.name} at {storage.location}")
    if generate_key:
        session.out.note(f"store a copy of {spec.key.file} away from this machine: nothing else opens it")


@command(
    examples=(
        ("drctl repo check", "is everything there that must be there?"),
        ("drctl repo check --read-data-subset 5%", "and does a twentieth of it read back?"),
    )
)
@name_argument
@click.option("--read-data", is_flag=True, help="Read, decrypt and hash everything that is stored.")
@click.option(
    "--read-data-subset",
    "subset",
    metavar="PART",
    help="The same for a part: 5%, 3/10 or 2GiB.",
)
@click.option("--seed", type=int, help="Which packs 5% or 2GiB chooses.  [default: new every time]")
@click.option("--no-lock", is_flag=True, help="Take no lock: for storages that only let us read.")
def check(
    session: Session, name: str | None, read_data: bool, subset: str | None, seed: int | None, no_lock: bool
) -> ExitCode:
    """Check that every snapshot of repository NAME can be restored. Exits with 30 on damage."""
    from drctl.repository.sample import Everything, parse_sample
    from drctl.workflows.check import run_check

    sample = Everything() if read_data else parse_sample(subset) if subset else None
    wiring = session.wiring()
    spec = wiring.repository_spec(name)
    repository = wiring.repository(spec)
    seed = secrets.randbits(32) if seed is None else seed
    with session.progress() as emit:
        report = run_check(repository, sample, seed, session.clock, emit, lock=not no_lock)
    for found in report.findings:
        fields = {"severity": found.severity, "file": found.file, "what": found.what, "hint": found.hint}
        session.out.record("finding", {"repository": spec.name, **fields})
    verdict = "DAMAGED" if report.is_damaged else "no damage found"
    read = f", {report.packs_read:,} of them read" if sample else ""
    session.out.summary(
        {
            "repository": spec.name,
            "damaged": report.is_damaged,
            "findings": len(report.findings),
            "snapshots": report.snapshots,
            "packs": report.packs,
            "blobs": report.blobs,
            "packs_read": report.packs_read,
            "bytes_read": report.bytes_read,
            "seed": report.seed,
        },
        f"{spec.name}: {verdict}: {report.snapshots:,} snapshots, {report.packs:,} packs{read}",
    )
    return report.exit_code


@command(examples=(("drctl repo unlock", "remove the locks of processes that are gone"),))
@name_argument
@click.option("--remove-all", is_flag=True, help="Remove living locks too: their runs are lost.")
@yes_option
def unlock(session: Session, name: str | None, remove_all: bool, yes: bool) -> None:
    """Remove the stale locks of repository NAME."""
    from drctl.workflows.unlock import remove_every_lock, remove_locks, stale_locks

    wiring = session.wiring()
    spec = wiring.repository_spec(name)
    repository = wiring.repository(spec)
    if remove_all:
        session.confirm(f"remove every lock of repository {spec.name}", spec.name, yes=yes)
        removed = remove_every_lock(repository)
    else:
        stale, living = stale_locks(repository, session.clock)
        rows = [_lock_row(lock, "stale, removed") for lock in stale]
        rows += [_lock_row(lock, "living, kept") for lock in living]
        remove_locks(repository, stale)
        removed = len(stale)
        if rows:
            session.out.table("lock", LOCK_COLUMNS, rows)
    session.out.summary(
        {"repository": spec.name, "removed": removed}, f"{spec.name}: {removed} locks removed"
    )


@command(
    name="verify-storage",
    examples=(
        ("drctl repo verify-storage", "before trusting a new provider, and after it changed something"),
    ),
)
@name_argument
def verify_storage(session: Session, name: str | None) -> ExitCode:
    """Try on the storage of repository NAME everything drctl relies on; exits with 5 when it fails.

    Writes small files and one of 20 MiB below drctl-probe/ and removes them; the repository is not
    touched, and there need not be one yet."""
    from drctl.storage.verify import verify_storage as try_all

    wiring = session.wiring()
    spec = wiring.repository_spec(name)
    findings = try_all(wiring.storage(spec))
    words = {True: "ok", False: "FAILED", None: "not claimed"}
    rows = [
        {"what": one.what, "passed": one.passed, "result": words[one.passed], "seen": one.reason}
        for one in findings
    ]
    columns = (Column("result", "Result"), Column("what", "Property"), Column("seen", "Seen"))
    session.out.table("property", columns, rows)
    failed = sum(one.passed is False for one in findings)
    fields = {"repository": spec.name, "failed": failed}
    session.out.summary(fields, f"{spec.name}: {failed} properties failed")
    return ExitCode.VERIFICATION_FAILED if failed else ExitCode.OK


@command(
    examples=(
        ("drctl repo stats", "what it holds, and what it takes"),
        ("drctl repo stats --content", "and what each snapshot restores to, and what nothing needs"),
    )
)
@name_argument
@click.option("--content", is_flag=True, help="Read all trees, too: restore sizes, ratios, unused bytes.")
def stats(session: Session, name: str | None, content: bool) -> None:
    """Show what repository NAME holds and what it takes."""
    from drctl.workflows.stats import survey_stats

    wiring = session.wiring()
    spec = wiring.repository_spec(name)
    repository = wiring.repository(spec)
    found = survey_stats(repository)
    if content:
        _show_content(session, spec.name, repository)
    rows = [
        {"what": kind.name.lower(), "count": amount.count, "bytes": amount.bytes}
        for kind, amount in (*found.files.items(), *found.blobs.items())
    ]
    session.out.table("amount", AMOUNT_COLUMNS, rows)
    fields = {
        "repository": spec.name,
        "snapshots": found.snapshots,
        "stored_bytes": found.stored_bytes,
        "plain_bytes": found.plain_bytes,
        "backed_up_bytes": found.backed_up_bytes,
    }
    whole = "?" if found.backed_up_bytes is None else show_size(found.backed_up_bytes)
    sizes = f"{show_size(found.plain_bytes)} of it different, stored in {show_size(found.stored_bytes)}"
    session.out.summary(fields, f"{spec.name}: {found.snapshots:,} snapshots of {whole} together, {sizes}")


def _show_content(session: Session, name: str, repository: Repository) -> None:
    from drctl.workflows.stats import run_content_stats

    found = run_content_stats(repository, session.clock)
    rows = [
        {
            "short_id": (snapshot.id or b"").hex()[:8],
            "id": (snapshot.id or b"").hex(),
            "time": snapshot.time,
            "restore_bytes": size,
        }
        for snapshot, size in found.restore_bytes
    ]
    session.out.table("snapshot_size", SIZE_COLUMNS, rows)
    fields = {
        "repository": name,
        "needed_bytes": found.needed_stored,
        "unused_bytes": found.unused_stored,
        "duplicates": found.duplicates,
        "compression_ratio": found.compression_ratio,
        "dedup_ratio": found.dedup_ratio,
    }
    ratios = " and ".join(
        f"{word} saves {ratio:.1f}x"
        for word, ratio in (("dedup", found.dedup_ratio), ("compression", found.compression_ratio))
        if ratio is not None
    )
    unused = f"{show_size(found.unused_stored)} that no snapshot needs"
    session.out.record("content", fields, f"{name}: {', '.join(filter(None, (ratios, unused)))}")


def _lock_row(lock: LockRecord, state: str) -> dict[str, object]:
    return {
        "id": lock.id.hex(),
        "hostname": lock.hostname,
        "username": lock.username,
        "pid": lock.pid,
        "kind": "exclusive" if lock.exclusive else "shared",
        "time": lock.time,
        "state": state,
    }
