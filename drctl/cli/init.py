"""`drctl init`: from nothing to a plan, a repository and its key.

Invariant: nothing that exists is overwritten, and after a failure nothing half-made is left of what
this run made.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from drctl.cli.command import command
from drctl.cli.session import Session
from drctl.errors import RefusedError

if TYPE_CHECKING:
    from drctl.planfile.template import Start

# what a Linux machine has that nobody else has; those that exist are put into the first plan
USUAL_PATHS = ("/etc", "/home", "/root", "/srv", "/var/www", "/usr/local", "/opt")


@command(
    examples=(
        ("drctl init", "plan, key and repository in this folder, for this machine's usual folders"),
        ("drctl init /etc/drctl --repository /backup/drctl", "the repository somewhere else"),
    )
)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=".")
@click.option(
    "--path",
    "paths",
    multiple=True,
    type=click.Path(exists=True, resolve_path=True),
    help="What is backed up. Repeatable.  [default: those of this machine's usual folders that exist]",
)
@click.option(
    "--repository", type=click.Path(path_type=Path), metavar="PATH", help="[default: FOLDER/repository]"
)
@click.option(
    "--key-file", type=click.Path(path_type=Path), metavar="PATH", help="[default: FOLDER/repository.key]"
)
@click.option("--service", default="files", show_default=True, metavar="NAME", help="Its name in the plan.")
@click.option(
    "--policy", default="nightly-30d", show_default=True, metavar="NAME", help="What policy it has."
)
def init(
    session: Session,
    folder: Path,
    paths: Sequence[str],
    repository: Path | None,
    key_file: Path | None,
    service: str,
    policy: str,
) -> None:
    """Write a commented plan for this machine into FOLDER, and make its repository and key.

    Nothing that exists is overwritten. The key is random and lies in a file that only you may read."""
    folder = folder.resolve()
    repository = (repository or folder / "repository").resolve()
    key_file = (key_file or folder / "repository.key").resolve()
    plan_file = folder / "drctl.yaml"
    start = _start(paths, repository, key_file, service, policy)
    with _kept_on_success() as undo:
        _make_plan_and_repository(session, start, plan_file, undo)
    made = {"plan": plan_file, "repository": repository, "key_file": key_file, "paths": start.paths}
    session.out.record("init", made, *_farewell(plan_file, repository, key_file, start.paths))


def _start(paths: Sequence[str], repository: Path, key_file: Path, service: str, policy: str) -> Start:
    from drctl.planfile.template import Start

    usual = [path for path in USUAL_PATHS if os.path.isdir(path) and not os.path.islink(path)]
    start = Start(
        hostname=socket.gethostname(),
        time_zone=local_time_zone(),
        paths=paths or usual,
        repository=str(repository),
        key_file=str(key_file),
        service=service,
        policy=policy,
    )
    # a repository inside the tree would back itself up, and grow with every run
    return replace(start, exclude=(*start.exclude, _literal_pattern(str(repository))))


def _make_plan_and_repository(
    session: Session, start: Start, plan_file: Path, undo: Callable[[Path], None]
) -> None:
    from drctl.cli.new_file import write_new, write_new_key
    from drctl.planfile.template import render_plan
    from drctl.wiring import Wiring, load_plan
    from drctl.workflows.initialise import initialise

    for taken in (plan_file, Path(start.key_file), Path(start.repository) / "config"):
        if os.path.lexists(taken):
            raise RefusedError(f"{taken} exists already", hint=_way_on(start, plan_file))
    write_new(plan_file, render_plan(start))
    undo(plan_file)
    key = write_new_key(Path(start.key_file))
    undo(Path(start.key_file))
    wiring = Wiring(load_plan(plan_file, session.environment), session.environment, session.clock)
    spec = wiring.repository_spec(None)
    initialise(wiring.storage(spec), key, spec, session.clock)


def _way_on(start: Start, plan_file: Path) -> str:
    """What to do about what is there: an earlier init may have been killed half-way."""
    if plan_file.exists() and not (Path(start.repository) / "config").exists():
        generate = "" if Path(start.key_file).exists() else " --generate-key"
        return f"if an init was interrupted, finish it: drctl -p {plan_file} repo init{generate}"
    return "init starts from nothing; choose another FOLDER"


@contextmanager
def _kept_on_success() -> Iterator[Callable[[Path], None]]:
    """Files told to the block's function are removed again unless the block succeeds."""
    with ExitStack() as stack:
        yield lambda path: (stack.callback(path.unlink, missing_ok=True), None)[1]
        stack.pop_all()


def local_time_zone() -> str:
    """The machine's IANA time zone as Debian (/etc/timezone) or systemd (/etc/localtime) keeps it;
    UTC where neither says."""
    try:
        named = Path("/etc/timezone").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        named = os.path.realpath("/etc/localtime").partition("/zoneinfo/")[2]
    return named or "UTC"


def _literal_pattern(path: str) -> str:
    """A gitignore pattern for exactly this absolute path."""
    return "".join(f"\\{char}" if char in "\\*?[" else char for char in path)


def _farewell(plan_file: Path, repository: Path, key_file: Path, paths: Sequence[str]) -> list[str]:
    return [
        f"plan        {plan_file}",
        f"repository  {repository}",
        f"key         {key_file}",
        f"backs up    {', '.join(paths)}",
        "",
        "Keep the key safe, now: without it nobody reads the backups, you neither; with it anybody does.",
        f"- Store a copy of {key_file} away from this machine: in a password manager, or printed in a safe.",
        f"- Store {plan_file} and this line with it; stock restic opens the repository without drctl:",
        f"    restic -r {repository} --password-file {key_file} snapshots",
        "- A repository on this machine's own disk does not survive the disk: give the plan a second one.",
        "",
        f"Next:  drctl -p {plan_file} backup run",
    ]
