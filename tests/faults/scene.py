"""A plan, two repositories and a tree that the fault suites harm, made once and copied for each point.

Invariant: a scene knows what every snapshot of it must restore to, independently of drctl: a plain
copy of the tree lies beside it.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from drctl.clock import SystemClock
from drctl.domain.events import ignore
from drctl.domain.secret import Secret
from drctl.repository.crypto import ScryptCost
from drctl.repository.opening import create_repository, open_repository
from drctl.repository.repo import FileKind, Repository
from drctl.repository.snapshot import Snapshot
from drctl.sources.files import FilesOptions, FilesSource
from drctl.storage.local import LocalOptions, LocalStorage
from drctl.workflows.backup import BackupRequest, run_backup
from drctl.workflows.replicate import run_copy
from drctl.workflows.restore import RestoreRequest, run_restore
from tests.compare import differences
from tests.restics import restic_programs
from tests.workflow.forget_cases import received

KEY = "0123456789abcdef-the-key-of-the-fault-suites"
SECOND_KEY = "fedcba9876543210-another-key-of-the-fault-suites"
THIRD_KEY = "0000000000000000-the-key-that-a-flow-adds"
CHEAP = ScryptCost(n=2, r=1, p=1)  # of keys that only tests have
ROOT = Path(__file__).parents[2]
DAY = timedelta(days=1)

PLAN = """\
organisation: "Faults"
time_zone: "UTC"
sites: {{here: {{description: "here"}}}}
hosts: {{"web1": {{site: here}}}}
repositories:
  main:
    site: here
    storage: {{kind: local, path: "{folder}/repository"}}
    key: {{file: "{folder}/main.key"}}
  copy:
    site: here
    storage: {{kind: local, path: "{folder}/copy"}}
    key: {{file: "{folder}/main.key"}}
services:
  "shop":
    policy: "nightly-30d"
    repositories: [main, copy]
    sources: {{files: {{kind: files, paths: ["{base}/tree"]}}}}
"""


@dataclass(frozen=True)
class Done:
    """What became of a command: its exit code (negative: the signal), and what it printed."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Scene:
    """`base` holds what never changes (the tree, what is expected of each snapshot, a template);
    `folder` what a flow may harm, made anew by `reset` at the same path."""

    base: Path

    @property
    def folder(self) -> Path:
        """The plan, the keys, both repositories."""
        return self.base / "work"

    @property
    def tree(self) -> Path:
        """What is backed up."""
        return self.base / "tree"

    @property
    def repository(self) -> Path:
        """The repository `main`."""
        return self.folder / "repository"

    @property
    def copy(self) -> Path:
        """The repository `copy`."""
        return self.folder / "copy"

    @property
    def target(self) -> Path:
        """Where the flow `restore` restores to."""
        return self.folder / "target"

    def words(self, *arguments: str, program: Sequence[str] = ("drctl",)) -> list[str]:
        """The command line of a drctl with this plan. `program` is a module and its first words."""
        plan = ["--plan", str(self.folder / "drctl.yaml")]
        return [sys.executable, "-m", *program, *plan, *arguments]

    def environment(self, **more: str) -> dict[str, str]:
        """A clean environment; the cache belongs to the scene."""
        cache = {"DRCTL_CACHE": str(self.folder / "cache"), "TMPDIR": str(self.folder / "tmp")}
        keep = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        return {**keep, "HOME": str(self.folder), "PYTHONPATH": str(ROOT), **cache, **more}

    def run(self, *arguments: str, timeout_s: float = 120, **environment: str) -> Done:
        """A drctl command, undisturbed."""
        done = subprocess.run(
            self.words(*arguments),
            env=self.environment(**environment),
            cwd=self.base,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=timeout_s,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def open(self, which: Path | None = None, key: str = KEY) -> Repository:
        """A repository, opened in this process."""
        return open_repository(LocalStorage(LocalOptions(str(which or self.repository))), Secret(key))

    def snapshots(self, which: Path | None = None) -> dict[str, Snapshot]:
        """The snapshots by their full ids."""
        return {one.id.hex(): one for one in self.open(which).snapshots() if one.id}

    def restic(
        self, *arguments: str, which: Path | None = None, key: str = KEY, program: str | None = None
    ) -> Done:
        """Stock restic (the newest at hand unless named) on a repository."""
        done = subprocess.run(
            [program or restic_programs()[-1], "--no-cache", "-r", str(which or self.repository), *arguments],
            env={"PATH": os.environ["PATH"], "RESTIC_PASSWORD": key, "HOME": str(self.folder)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def reset(self) -> None:
        """Everything as it was made."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.base / "template", self.folder)

    def expected(self) -> Mapping[str, Path]:
        """The plain tree of each snapshot that the scene was made with, oldest first."""
        names = (self.base / "expected" / "order").read_text().split()
        return {name: self.base / "expected" / name / "tree" for name in names}

    def wrongly_restored(
        self, snapshot: str, expected: Path, out: Path, by: str, which: Path | None = None
    ) -> list[str]:
        """What is wrong about a snapshot's restored tree; `by` is `drctl` or `restic`. Leaves nothing."""
        try:
            if by == "restic":
                done = self.restic("--no-lock", "restore", snapshot, "--target", str(out), which=which)
                if done.code:
                    return [f"restic does not restore {snapshot[:8]}: {done.err.strip()}"]
            else:
                request = RestoreRequest(str(out), choice=snapshot, take_lock=False)
                report = run_restore(self.open(which), request, SystemClock(), ignore, lambda: None)
                if report.exit_code:
                    return [f"drctl does not restore {snapshot[:8]}: {report.error()}"]
            restored = Path(f"{out}{self.tree}")
            return [f"{by} restored {snapshot[:8]}: {one}" for one in differences(expected, restored)]
        finally:
            shutil.rmtree(out, ignore_errors=True)


def write_tree(tree: Path, seed: int, files: int = 24) -> None:
    """Files of 0 to 60 KB in folders, a link, a hard link, and one file large enough for the threads of
    the main process. Another seed changes half of them."""
    dice = random.Random(seed)
    for number in range(files):
        folder = tree / f"folder{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        if seed == 0 or number % 2:
            (folder / f"file{number}").write_bytes(dice.randbytes(dice.randrange(60_000)))
    (tree / f"only{seed}").write_text(f"round {seed}\n" * 50)
    if not (tree / "link").is_symlink():
        (tree / "link").symlink_to("folder0/file0")
        os.link(tree / "folder1" / "file1", tree / "hard")


def make_scene(base: Path, *, large: bool = True) -> Scene:
    """Three snapshots received 90, 2 and 0 days ago and a tree that has changed since. The first one is
    due by the policy; `copy` has the second one only. Two keys open `main`."""
    scene = Scene(base)
    for folder in (scene.tree, base / "expected", scene.folder / "tmp", scene.folder / "cache"):
        folder.mkdir(parents=True)
    (scene.folder / "drctl.yaml").write_text(PLAN.format(base=base, folder=scene.folder))
    for name, key in (("main.key", KEY), ("second.key", SECOND_KEY), ("third.key", THIRD_KEY)):
        (scene.folder / name).write_text(key + "\n")
        (scene.folder / name).chmod(0o600)
    for place in (scene.repository, scene.copy):
        create_repository(LocalStorage(LocalOptions(str(place))), Secret(KEY), SystemClock(), cost=CHEAP)
    scene.open().add_key(Secret(SECOND_KEY), SystemClock(), CHEAP)
    order = [_take_snapshot(scene, number, age) for number, age in enumerate((90, 2, 0))]
    (base / "expected" / "order").write_text("\n".join(order))
    run_copy(scene.open(), scene.open(scene.copy), [scene.snapshots()[order[1]]], SystemClock(), ignore)
    write_tree(scene.tree, 3)
    if large:
        (scene.tree / "large").write_bytes(random.Random(9).randbytes(9_000_000))
    scene.folder.rename(base / "template")
    scene.reset()
    return scene


def _take_snapshot(scene: Scene, number: int, age_days: int) -> str:
    write_tree(scene.tree, number)
    repository, clock = scene.open(), SystemClock()
    source = FilesSource(FilesOptions((str(scene.tree),)))
    request = BackupRequest("shop", "files", "web1", full=True)
    snapshot = run_backup(repository, source, request, clock, ignore, lambda: None).snapshot
    if age_days:
        recent, snapshot = snapshot, received(repository, snapshot, clock.now() - age_days * DAY)
        repository.remove(FileKind.SNAPSHOT, recent.id or b"")
    name = (snapshot.id or b"").hex()
    subprocess.run(["cp", "-a", str(scene.tree), str(scene.base / "expected" / f"{name}.tree")], check=True)
    (scene.base / "expected" / name).mkdir()
    (scene.base / "expected" / f"{name}.tree").rename(scene.base / "expected" / name / "tree")
    return name
