"""Canary secrets stay where they belong, and what drctl makes is for its owner only (safety 39, 40)."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.scene import ROOT
from tests.servers.s3 import S3Server

KEY = "canary-key-7c1f0e55d2"
OTHER_KEY = "canary-other-key-19ab77"
_PLAN = """\
organisation: "Canary"
time_zone: "UTC"
sites: {{here: {{description: "here"}}}}
hosts: {{"web1": {{site: here}}}}
repositories:
  main:
    site: here
    storage: {{kind: local, path: "{folder}/repository"}}
    key: {{file: "{folder}/secrets/main.key"}}
  bucket:
    site: here
    retry_for: 1s
    storage:
      kind: s3
      bucket: "{bucket}"
      endpoint: "{endpoint}"
      path_style: true
      access_key: {{file: "{folder}/secrets/access"}}
      secret_key: {{file: "{folder}/secrets/secret"}}
    key: {{environment: CANARY_KEY}}
services:
  "shop":
    policy: "nightly-30d"
    repositories: [main, bucket]
    sources: {{files: {{kind: files, paths: ["{folder}/tree"]}}}}
"""


class _Watch:
    """Looks at the command lines of everything below a process while it runs."""

    def __init__(self, session: int) -> None:
        self.seen: set[str] = set()
        self._session = session
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._stop.wait(0.01):
            for process in Path("/proc").glob("[0-9]*"):
                with suppress(OSError, IndexError):
                    fields = (process / "stat").read_text().rsplit(")", 1)[1].split()
                    if int(fields[3]) == self._session:
                        self.seen.add((process / "cmdline").read_text())

    def end(self) -> set[str]:
        """All that was seen."""
        self._stop.set()
        self._thread.join()
        return self.seen


class _House:
    """A plan with canaries, and every word that commands said about it."""

    def __init__(self, folder: Path, endpoint: str, bucket: str, secret: str) -> None:
        self.folder = folder
        self.secrets = {"main.key": KEY, "other.key": OTHER_KEY, "access": "AKIDEXAMPLE", "secret": secret}
        self.canaries = (KEY, OTHER_KEY, secret)
        for name in ("tree", "tmp", "secrets"):
            (folder / name).mkdir()
        for name, text in self.secrets.items():
            (folder / "secrets" / name).write_text(text + "\n")
            (folder / "secrets" / name).chmod(0o600)
        (folder / "tree" / "file").write_bytes(os.urandom(50_000))
        (folder / "drctl.yaml").write_text(_PLAN.format(folder=folder, endpoint=endpoint, bucket=bucket))
        self.said = ""
        self.command_lines: set[str] = set()
        self.codes: list[int] = []

    def run(self, *words: str, **more: str) -> int:
        """A command with umask 0; its exit code."""
        environment = {
            **{name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ},
            "PYTHONPATH": str(ROOT),
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder / "tmp"),
            "CANARY_KEY": KEY,
            **more,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "drctl", "--plan", str(self.folder / "drctl.yaml"), *words],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            umask=0,
            start_new_session=True,
        )
        watch = _Watch(process.pid)
        try:
            out, err = process.communicate(timeout=120)
        finally:
            self.command_lines |= watch.end()
        self.said += out + err
        self.codes.append(process.returncode)
        return process.returncode

    def leaks(self) -> list[str]:
        """Where a canary shows up outside its own file."""
        found = [f"said: {canary}" for canary in self.canaries if canary in self.said]
        found += [
            f"argv: {line!r}"
            for line in self.command_lines
            if any(canary in line for canary in self.canaries)
        ]
        for path in self.folder.rglob("*"):
            if path.is_file() and path.parent.name != "secrets":
                data = path.read_bytes()
                found += [f"{path}: {canary}" for canary in self.canaries if canary.encode() in data]
        return found

    def open_modes(self) -> list[str]:
        """What drctl made that others may look into."""
        made = [self.folder / "repository", self.folder / ".cache", self.folder / "tmp" / "made"]
        return [
            f"{path}: {path.lstat().st_mode & 0o7777:o}"
            for top in made
            if top.exists()
            for path in (top, *top.rglob("*"))
            if path.lstat().st_mode & 0o077
        ]


@pytest.mark.parametrize("settings", [(), ("--verbose",), ("--output", "json"), ("debug",)])
@pytest.mark.parametrize("server", ["s3_moto", "s3_rclone"])
def test_canaries_appear_nowhere_and_umask_0_opens_nothing(
    tmp_path: Path, request: pytest.FixtureRequest, server: str, settings: tuple[str, ...]
) -> None:
    s3: S3Server = request.getfixturevalue(server)
    house = _House(tmp_path, s3.endpoint, s3.bucket_of_its_own(), s3.secret_key)
    more = {"DRCTL_DEBUG": "1"} if settings == ("debug",) else {}
    flags = () if more else settings

    def run(*words: str, **changed: str) -> int:
        return house.run(*words, *flags, **{**more, **changed})

    assert [run("repo", "init", name) for name in ("main", "bucket")] == [0, 0], house.said
    assert run("backup", "run") == 0, house.said
    assert run("repo", "copy") == 0, house.said
    assert run("repo", "key", "add", str(tmp_path / "secrets" / "other.key"), "-r", "main") == 0
    assert run("repo", "check", "bucket") == 0
    assert run("restore", "--target", str(tmp_path / "back"), "-r", "bucket") == 0
    assert run("plan", "show") == 0
    assert house.open_modes() == []
    # provoked errors: a wrong key, a key that is no key, a damaged repository, an unreachable server
    assert run("repo", "check", "bucket", CANARY_KEY=OTHER_KEY) == 12
    assert run("repo", "key", "add", str(tmp_path / "nothing"), "-r", "main") == 2
    (tmp_path / "repository" / "config").write_bytes(os.urandom(155))
    assert run("repo", "check", "main") != 0
    plan = tmp_path / "drctl.yaml"
    plan.write_text(plan.read_text().replace(s3.endpoint, "http://127.0.0.1:9"))
    assert run("repo", "check", "bucket") == 20
    for name in ("main.key", "secret"):
        (tmp_path / "secrets" / name).chmod(0o644)
    assert run("backup", "run") == 40
    plan.write_text(plan.read_text().replace("bucket:", "buckett:"))
    assert run("plan", "validate") == 2
    assert house.leaks() == []
    assert any("backup" in line for line in house.command_lines), "nothing was watched"


def test_the_search_finds_a_canary_that_leaks(tmp_path: Path) -> None:
    house = _House(tmp_path, "http://127.0.0.1:9", "b", "canary-secret")
    sleeper = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(20)", KEY], start_new_session=True
    )
    watch = _Watch(sleeper.pid)
    time.sleep(0.3)
    sleeper.kill()
    sleeper.wait()
    house.command_lines = watch.end()
    house.said = f"wrong key: {OTHER_KEY}"
    (tmp_path / "tmp" / "drctl-traceback-x.txt").write_text(f"Secret('{KEY}')")
    (tmp_path / "tmp" / "made").mkdir(mode=0o755)
    assert len(house.leaks()) == 3
    assert len(house.open_modes()) == 1
