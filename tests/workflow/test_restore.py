"""Choosing a snapshot, restoring it, and what the report says of it."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from drctl.clock import SystemClock
from drctl.domain.events import Event, Finished, Noticed, Progressed, Started, ignore
from drctl.errors import (
    CorruptError,
    ExitCode,
    InterruptedRunError,
    LockedError,
    UsageError,
    VerificationError,
)
from drctl.repository.extract import RestoreOptions
from drctl.repository.extract_target import Existing
from drctl.repository.snapshot import Snapshot
from drctl.workflows.restore import (
    Newest,
    RestoreReport,
    RestoreRequest,
    choose_snapshot,
    preview_restore,
    run_restore,
)
from tests.handmade import NOON, Handmade, node

AS_ROOT = os.geteuid() == 0


@pytest.fixture
def made(tmp_path: Path) -> Handmade:
    return Handmade(tmp_path / "repository")


def run(made: Handmade, request: RestoreRequest, stop: Callable[[], None] = lambda: None) -> RestoreReport:
    return run_restore(made.repository, request, SystemClock(), ignore, stop)


def locks(made: Handmade) -> list[str]:
    return os.listdir(made.directory / "locks") if (made.directory / "locks").exists() else []


# --- choosing


@pytest.fixture
def history(made: Handmade) -> dict[str, Snapshot]:
    hours = {"first": 0, "second": 1, "partial": 2, "other": 3}
    facts = {"first": {}, "second": {}, "partial": {"state": "partial"}, "other": {"service": "mail"}}
    return {
        name: made.snapshot(
            made.tree(made.file(name, b"x")),
            NOON + timedelta(hours=hour),
            **{"service": "shop", "source": "files", **facts[name]},
        )
        for name, hour in hours.items()
    }


@pytest.mark.parametrize(
    ("choice", "service", "expected"),
    [
        (Newest.LATEST, "mail", "other"),
        (Newest.LATEST, "shop", "second"),
        (NOON + timedelta(hours=9), "shop", "second"),
        (NOON + timedelta(minutes=59), "shop", "first"),
        (NOON, "shop", "first"),
        (NOON, None, "first"),
    ],
)
def test_the_newest_complete_snapshot_at_or_before_a_time_is_chosen(
    made: Handmade,
    history: dict[str, Snapshot],
    choice: Newest | datetime,
    service: str | None,
    expected: str,
) -> None:
    request = RestoreRequest("/nowhere", choice, service)
    assert choose_snapshot(made.repository, request, ignore) == history[expected]


@pytest.mark.parametrize(
    "request_",
    [RestoreRequest("/x", NOON - timedelta(seconds=1)), RestoreRequest("/x", service="none"),
     RestoreRequest("/x", service="shop", source_name="none"), RestoreRequest("/x", "ffffffffffff")],
)  # fmt: skip
def test_no_such_snapshot_is_a_usage_error(
    made: Handmade, history: dict[str, Snapshot], request_: RestoreRequest
) -> None:
    with pytest.raises(UsageError, match="no snapshot"):
        choose_snapshot(made.repository, request_, ignore)


@pytest.mark.parametrize("choice", [Newest.LATEST, NOON + timedelta(hours=3)])
def test_the_newest_of_several_sources_is_not_guessed(
    made: Handmade, history: dict[str, Snapshot], choice: Newest | datetime
) -> None:
    assert len(history) == 4
    with pytest.raises(UsageError, match="there are mail/files, shop/files"):
        choose_snapshot(made.repository, RestoreRequest("/x", choice), ignore)


def test_passing_over_a_partial_snapshot_is_told(made: Handmade, history: dict[str, Snapshot]) -> None:
    heard: list[Event] = []
    choose_snapshot(made.repository, RestoreRequest("/x", service="shop"), heard.append)
    assert [event.message for event in heard if isinstance(event, Noticed)] == [
        "1 newer snapshots are partial and were passed over for 2026-01-02T13:00:00Z"
    ]


def test_a_partial_snapshot_is_restored_by_its_id_and_told(
    made: Handmade, history: dict[str, Snapshot], tmp_path: Path
) -> None:
    partial = history["partial"]
    assert partial.id is not None
    heard: list[Event] = []
    request = RestoreRequest(str(tmp_path / "target"), partial.id.hex()[:10])
    report = run_restore(made.repository, request, SystemClock(), heard.append, lambda: None)
    assert report.snapshot == partial
    assert any(isinstance(event, Noticed) and "is partial" in event.message for event in heard)
    assert os.listdir(tmp_path / "target") == ["partial"]


# --- running


def test_a_restore_reports_what_it_did_and_says_so_as_it_goes(made: Handmade, tmp_path: Path) -> None:
    made.snapshot(made.tree(made.file("f", b"data"), made.folder("d", made.file("g", b"12345"))))
    heard: list[Event] = []
    request = RestoreRequest(str(tmp_path / "target"), verify=True)
    report = run_restore(made.repository, request, SystemClock(), heard.append, lambda: None)
    assert (report.files, report.directories, report.others, report.bytes) == (2, 1, 0, 9)
    assert (report.bytes_written, report.verified, report.exit_code, report.error()) == (9, True, 0, None)
    assert [event.what for event in heard if isinstance(event, Started)] == [
        "planning the restore", "restoring", "verifying",
    ]  # fmt: skip
    assert [event.what for event in heard if isinstance(event, Finished)] == [
        "planning the restore", "restoring", "verifying",
    ]  # fmt: skip
    last = [event for event in heard if isinstance(event, Progressed)][-1]
    assert last.bytes == 9
    assert locks(made) == []


def test_a_preview_writes_nothing(made: Handmade, tmp_path: Path) -> None:
    made.snapshot(made.tree(made.file("f", b"data")))
    preview = preview_restore(made.repository, RestoreRequest(str(tmp_path / "t")), SystemClock(), ignore)
    assert (preview.plan.files, preview.plan.bytes, preview.plan.failures) == (1, 4, ())
    assert not (tmp_path / "t").exists()
    assert locks(made) == []


def test_damage_makes_the_exit_code_corrupt_and_the_error_one_line(made: Handmade, tmp_path: Path) -> None:
    good, bad = made.file("good", b"data"), made.file("bad", b"x") | {"content": ["ab" * 32]}
    made.snapshot(made.tree(good, bad))
    report = run(made, RestoreRequest(str(tmp_path / "target"), verify=True))
    error = report.error()
    assert isinstance(error, CorruptError)
    assert report.exit_code is ExitCode.CORRUPT
    assert error.message == "restore is not complete: bad: data blob abababab of it is in no index"
    assert (tmp_path / "target/good").exists()


def test_a_difference_found_on_reading_back_is_a_verification_error(
    made: Handmade, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.snapshot(made.tree(made.file("f", b"data")))
    target = tmp_path / "target"

    def meddle(event: Event) -> None:
        if isinstance(event, Started) and event.what == "verifying":
            (target / "f").write_bytes(b"DATA")

    request = RestoreRequest(str(target), verify=True)
    report = run_restore(made.repository, request, SystemClock(), meddle, lambda: None)
    assert isinstance(report.error(), VerificationError)
    assert (report.verified, report.exit_code) == (False, ExitCode.VERIFICATION_FAILED)
    assert [failure.path for failure in report.failures] == [b"f"]


def test_an_exclusive_lock_keeps_a_restore_out(made: Handmade, tmp_path: Path) -> None:
    made.snapshot(made.tree(made.file("f", b"data")))
    with made.repository.take_lock(SystemClock(), exclusive=True), pytest.raises(LockedError):
        run(made, RestoreRequest(str(tmp_path / "target")))
    assert not (tmp_path / "target").exists()


def test_a_storage_without_locks_can_be_restored_from(made: Handmade, tmp_path: Path) -> None:
    made.snapshot(made.tree(made.file("f", b"data")))
    with made.repository.take_lock(SystemClock(), exclusive=True):
        report = run(made, RestoreRequest(str(tmp_path / "target"), take_lock=False))
    assert report.exit_code is ExitCode.OK


def test_being_asked_to_stop_ends_the_run_and_a_delta_completes_it(made: Handmade, tmp_path: Path) -> None:
    files = []
    for number in range(20):
        files.append(made.file(f"f{number}", os.urandom(10_000)))
        made.new_pack()
    made.snapshot(made.tree(*files))
    calls = []

    def stop() -> None:
        calls.append(1)
        if len(calls) == 4:
            raise InterruptedRunError("stopped")

    target = tmp_path / "target"
    with pytest.raises(InterruptedRunError):
        run(made, RestoreRequest(str(target)), stop)
    assert locks(made) == []
    options = RestoreOptions(existing=Existing.REUSE)
    report = run(made, RestoreRequest(str(target), options=options, verify=True))
    assert (report.exit_code, report.verified) == (ExitCode.OK, True)
    assert 0 < report.bytes_kept < report.bytes


# --- who restores, and what may come back


def _special(made: Handmade) -> None:
    root = {"uid": 0, "gid": 0}
    made.snapshot(
        made.tree(
            made.file("setuid", b"x") | root | {"mode": 1 << 23 | 1 << 22 | 0o755},
            made.file("owned", b"x") | root,
            node("null", "chardev", mode=1 << 26 | 1 << 21 | 0o666, device=os.makedev(1, 3), links=1, **root),
        )
    )


@pytest.mark.skipif(not AS_ROOT, reason="only root can give files away and make devices")
def test_root_gives_back_owners_setuid_and_devices(made: Handmade, tmp_path: Path) -> None:
    _special(made)
    assert run(made, RestoreRequest(str(tmp_path / "t"), verify=True)).exit_code is ExitCode.OK
    assert stat.S_IMODE((tmp_path / "t/setuid").stat().st_mode) == 0o6755
    assert (tmp_path / "t/null").stat().st_rdev == os.makedev(1, 3)


@pytest.mark.skipif(not AS_ROOT, reason="only root can give files away and make devices")
def test_privileges_are_stripped_where_they_were_declined(made: Handmade, tmp_path: Path) -> None:
    _special(made)
    options = RestoreOptions(privileges=False)
    report = run(made, RestoreRequest(str(tmp_path / "t"), options=options, verify=True))
    assert report.exit_code is ExitCode.OK
    assert stat.S_IMODE((tmp_path / "t/setuid").stat().st_mode) == 0o755
    assert sorted(os.listdir(tmp_path / "t")) == ["owned", "setuid"]


@pytest.mark.skipif(not AS_ROOT, reason="becomes another user, which only root can")
def test_who_is_not_root_keeps_the_files_gives_no_setuid_and_is_told() -> None:
    # pytest's own directories are closed to other users
    with tempfile.TemporaryDirectory() as scratch:
        top = Path(scratch)
        made = Handmade(top / "repository")
        _special(made)
        for path in (top, *top.rglob("*")):
            path.chmod(0o777 if path.is_dir() else 0o666)
        lines = _restore_as_nobody(made, top / "t")
        assert lines[:2] == ["3", "2"]
        assert lines[2:]
        assert all(line.startswith("null: ") for line in lines[2:])
        assert stat.S_IMODE((top / "t/setuid").stat().st_mode) == 0o755
        assert (top / "t/owned").stat().st_uid == 65534


def _restore_as_nobody(made: Handmade, target: Path) -> list[str]:
    """Exit code, how many have another owner, and what failed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            report = run(made, RestoreRequest(str(target), verify=True))
            lines = [str(int(report.exit_code)), str(report.strangers)]
            lines += [failure.describe() for failure in report.failures]
            os.write(writer, "\n".join(lines).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as answer:
        lines = answer.read().split("\n")
    os.waitpid(child, 0)
    return lines
