"""Power cuts: ext4 on a loop device forgets what was not synced, and what was acknowledged must be there.

`python -m tests.faults.power_cut BASE ROUNDS SEED CONTROL` makes the rounds in a mount namespace of its
own (start it with unshare) and prints a JSON report. CONTROL is `none` or a name of `tests.faults.broken`.
Invariant: acknowledgements are noted before the cut; the cut is ext4's own shutdown without a flush of
its journal, then the victim is killed, and the disk is mounted again.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from drctl.clock import SystemClock
from drctl.domain.events import ignore
from drctl.errors import DrctlError
from drctl.repository.prune import UnusedLimit
from drctl.repository.repo import FileKind
from drctl.sources.files import FilesOptions, FilesSource
from drctl.workflows.backup import BackupRequest, run_backup
from drctl.workflows.prune import run_prune
from tests.faults.broken import break_it
from tests.faults.scene import ROOT, Scene, make_scene

_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32), linux/fs/ext4
_NO_LOG_FLUSH = 2
_IMAGE_BYTES = 192 * 2**20
_KEPT = 4  # snapshots; the victim forgets older ones and prunes


@dataclass
class _Promises:
    """What the victim said, up to the cut."""

    guard: threading.Lock = field(default_factory=threading.Lock)
    kept: dict[str, str] = field(default_factory=dict)  # id -> plain copy of its tree
    cut: bool = False
    acknowledged: int = 0
    pruned: int = 0

    def hear(self, line: str) -> None:
        """One line of the victim; what comes after the cut does not count."""
        with self.guard:
            match [] if self.cut else line.split():
                case ["saved", identifier, tree]:
                    self.kept[identifier] = tree
                    self.acknowledged += 1
                case ["forgets", identifier]:
                    self.kept.pop(identifier, None)
                case ["pruned"]:
                    self.pruned += 1


def main(base: Path, rounds: int, seed: int, control: str) -> dict[str, object]:
    """All rounds; stops at the first loss."""
    dice = random.Random(seed)
    scene = make_scene(base / "scene", large=False)
    disk = _Disk(base)
    disk.make()
    shutil.copytree(scene.repository, disk.mount / "repository")
    os.sync()
    shutil.rmtree(scene.repository)
    scene.repository.symlink_to(disk.mount / "repository")
    promises = _Promises(kept={name: str(path) for name, path in scene.expected().items()})
    losses: list[str] = []
    done = 0
    while done < rounds and not losses:
        promises.cut = False
        _one_round(scene, disk, promises, control, dice)
        losses = _losses(scene, promises)
        done += 1
    disk.unmount()
    return {
        "rounds": done,
        "seed": seed,
        "acknowledged": promises.acknowledged,
        "pruned": promises.pruned,
        "losses": losses,
    }


@dataclass(frozen=True)
class _Disk:
    base: Path

    @property
    def mount(self) -> Path:
        return self.base / "disk"

    def make(self) -> None:
        with (self.base / "image").open("wb") as image:
            image.truncate(_IMAGE_BYTES)
        subprocess.run(["mkfs.ext4", "-q", self.base / "image"], check=True)
        self.mount.mkdir()
        self.remount()

    def remount(self) -> None:
        subprocess.run(["mount", "-o", "loop", self.base / "image", self.mount], check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", self.mount], check=True)

    def cut(self) -> None:
        descriptor = os.open(self.mount, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(descriptor)


def _one_round(scene: Scene, disk: _Disk, promises: _Promises, control: str, dice: random.Random) -> None:
    words = [sys.executable, "-m", "tests.faults.power_cut", "victim", str(scene.base), control]
    victim = subprocess.Popen(
        [*words, str(dice.randrange(10**9))],
        env=scene.environment(PYTHONPATH=str(ROOT)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # it complains about the disk
        text=True,
        start_new_session=True,
    )
    assert victim.stdout is not None
    listener = threading.Thread(target=_listen, args=(victim.stdout, promises))
    listener.start()
    before = promises.acknowledged
    end = time.monotonic() + 60
    while promises.acknowledged == before and time.monotonic() < end and victim.poll() is None:
        time.sleep(0.01)
    assert promises.acknowledged > before, "the victim acknowledges nothing"
    time.sleep(dice.uniform(0, 1.5))
    with promises.guard:
        promises.cut = True
        disk.cut()
    with suppress(ProcessLookupError):
        os.killpg(victim.pid, signal.SIGKILL)
    victim.wait()
    listener.join()
    disk.unmount()
    disk.remount()


def _listen(lines: IO[str], promises: _Promises) -> None:
    for line in lines:
        promises.hear(line)


def _losses(scene: Scene, promises: _Promises) -> list[str]:
    found = []
    try:
        there = scene.snapshots()
    except DrctlError as exc:
        return [f"the repository does not open: {exc}"]
    for name, tree in promises.kept.items():
        if name not in there:
            found.append(f"snapshot {name[:8]} was acknowledged and is gone")
        else:
            found += scene.wrongly_restored(name, Path(tree), scene.base / "judged", "drctl")
    scene.restic("unlock")
    check = scene.restic("check", "--read-data")
    if check.code:
        found.append(f"restic check: {' | '.join(check.err.splitlines()[-4:])}")
    return found


def victim(base: Path, control: str, seed: int) -> None:
    """Back up, forget, prune, over and over; say what is promised."""
    if control != "none":
        break_it(control)
    scene, dice = Scene(base), random.Random(seed)
    repository = scene.open()
    kept = [one.id for one in repository.snapshots() if one.id]
    for number in range(10**6):
        for _ in range(3):
            (scene.tree / f"file{dice.randrange(20)}").write_bytes(dice.randbytes(dice.randrange(40_000)))
        plain = base / "plain" / f"{seed}-{number}"
        plain.parent.mkdir(exist_ok=True)
        subprocess.run(["cp", "-a", scene.tree, plain], check=True)
        request = BackupRequest("shop", "files", "web1", full=False)
        source = FilesSource(FilesOptions((str(scene.tree),)))
        report = run_backup(repository, source, request, SystemClock(), ignore, lambda: None)
        assert report.snapshot.id
        print("saved", report.snapshot.id.hex(), plain, flush=True)
        kept.append(report.snapshot.id)
        if len(kept) > _KEPT:
            for identifier in kept[:-_KEPT]:
                print("forgets", identifier.hex(), flush=True)
                repository.remove(FileKind.SNAPSHOT, identifier)
            kept = kept[-_KEPT:]
            run_prune(repository, UnusedLimit(None, 0), lambda _plan: True, SystemClock(), ignore)
            print("pruned", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "victim":
        victim(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
    else:
        print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])))
