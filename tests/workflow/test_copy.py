"""Copying between repositories: complete, once, resumable, and whatever drctl does not know survives."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from drctl.clock import SystemClock
from drctl.domain.events import Emit, Event, Noticed, ignore
from drctl.errors import (
    CorruptError,
    DrctlError,
    ExitCode,
    LockedError,
    StorageError,
    UnreachableError,
    UsageError,
)
from drctl.repository.copy import plan_copy
from drctl.repository.opening import create_repository
from drctl.repository.pack import BlobType
from drctl.repository.repo import FileKind, Repository
from drctl.storage.local import LocalOptions, LocalStorage
from drctl.workflows.replicate import CopyReport, run_copy
from tests import restic
from tests.format.goldens import NAMES, flip, picture, unpack
from tests.handmade import NOON, Handmade, node
from tests.workflow.faulty_storage import FaultyStorage
from tests.workflow.upkeep_cases import (
    assert_clean,
    cheapen,
    contents,
    copied,
    forget,
    make_repository,
    open_local,
    prune,
)

NEWEST = restic.PROGRAMS[-1]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_repository(tmp_path_factory.mktemp("made"), NEWEST)


@pytest.fixture
def source(made: Path, tmp_path: Path) -> Path:
    return copied(made, tmp_path)


def create(directory: Path, version: int = 2) -> Repository:
    return create_repository(
        LocalStorage(LocalOptions(str(directory))),
        restic.PASSWORD,
        SystemClock(),
        version=version,
        cost=restic.CHEAP,
    )


def copy(source: Repository, target: Repository, emit: Emit = ignore) -> CopyReport:
    return run_copy(source, target, None, SystemClock(), emit)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_a_copy_of_any_restic_repository_restores_the_same_with_stock_restic(
    name: str, version: int, tmp_path: Path
) -> None:
    directory = unpack(name, tmp_path)
    cheapen(directory)
    target = tmp_path / "target"
    create(target, version)
    report = copy(open_local(directory), open_local(target))
    assert [outcome.problem for outcome in report.copied] == [None, None]
    restic.assert_accepts(NEWEST, target)
    assert contents(NEWEST, target, tmp_path) == contents(NEWEST, directory, tmp_path)
    assert_clean(target)


def test_snapshots_keep_their_tree_their_origin_and_our_first_receipt_time(
    source: Path, tmp_path: Path
) -> None:
    original = open_local(source)
    first, second = create(tmp_path / "first"), create(tmp_path / "second")
    copy(original, first)
    copy(first, second)
    for before, there, further in zip(
        original.snapshots(), first.snapshots(), second.snapshots(), strict=True
    ):
        assert before.tree == there.tree == further.tree
        assert there.original == further.original == before.id
        assert there.parent is further.parent is None
        assert before.received == there.received == further.received
        assert (before.time, before.hostname, before.paths) == (further.time, further.hostname, further.paths)


def test_copying_twice_copies_nothing_more(source: Path, tmp_path: Path) -> None:
    target = create(tmp_path / "target")
    copy(open_local(source), target)
    before = {
        name: made for name, made in picture(tmp_path / "target").items() if not name.startswith("locks")
    }
    report = copy(open_local(source), open_local(tmp_path / "target"))
    assert not report.copied
    assert [verdict.is_missing for verdict in report.verdicts] == [False] * 3
    assert picture(tmp_path / "target") == before


def test_only_what_is_missing_is_copied(source: Path, tmp_path: Path) -> None:
    original, target = open_local(source), create(tmp_path / "target")
    oldest = original.snapshots()[0]
    run_copy(original, target, [oldest], SystemClock(), ignore)
    assert len(target.snapshots()) == 1
    held = {(blob.type, blob.id) for _, blob in target.load_index()}
    report = copy(open_local(source), target)
    assert len(report.copied) == 2
    listed = [(blob.type, blob.id) for file in target.files(FileKind.INDEX)
              for _, blobs in target.index_file(file.id) for blob in blobs]  # fmt: skip
    assert len(listed) == len(set(listed)) == len(held) + report.blobs


def test_after_copying_the_target_can_be_pruned_by_either_tool(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    create(target)
    copy(open_local(source), open_local(target))
    forget(open_local(target), 0)
    prune(open_local(target))
    restic.assert_accepts(NEWEST, target)
    forget(open_local(target), 0)
    restic.run(NEWEST, target, "prune", "-q", "--max-unused", "0")
    assert_clean(target)


def test_what_drctl_does_not_know_in_a_tree_survives(tmp_path: Path) -> None:
    handmade = Handmade(tmp_path / "source")
    strange = handmade.file("f", b"content", generic_attributes={"windows.x": {"y": 1}}, future="field")
    snapshot = handmade.snapshot(handmade.tree(strange))
    target = create(tmp_path / "target")
    run_copy(handmade.repository, target, None, SystemClock(), ignore)
    target.load_index()
    assert target.load_tree(snapshot.tree) == handmade.repository.load_tree(snapshot.tree)
    assert b'"future"' in target.load_tree(snapshot.tree)


def test_a_file_that_holds_a_trees_bytes_is_copied_besides_that_tree(tmp_path: Path) -> None:
    handmade = Handmade(tmp_path / "source")
    empty = b'{"nodes": []}'
    handmade.snapshot(handmade.tree(handmade.folder("empty"), handmade.file("file", empty)))
    target = create(tmp_path / "target")
    run_copy(handmade.repository, target, None, SystemClock(), ignore)
    kinds = [blob.type for _, blob in target.load_index()]
    assert (kinds.count(BlobType.DATA), kinds.count(BlobType.TREE)) == (1, 2)
    restic.assert_accepts(NEWEST, tmp_path / "target")


def test_different_cutting_is_warned_about(source: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    copy(open_local(source), create(tmp_path / "target"), events.append)
    assert any(isinstance(event, Noticed) and "polynomials differ" in event.message for event in events)


def test_snapshots_that_fastcdc_cut_are_copied_without_that_warning(tmp_path: Path) -> None:
    handmade = Handmade(tmp_path / "source")
    tree = handmade.tree(handmade.file("file", b"content"))
    own = handmade.snapshot(tree, chunker="fastcdc")
    events: list[Event] = []
    run_copy(handmade.repository, create(tmp_path / "target"), [own], SystemClock(), events.append)
    assert not any(isinstance(event, Noticed) for event in events)


def test_a_repository_is_not_copied_into_itself(source: Path) -> None:
    with pytest.raises(UsageError, match="into itself"):
        copy(open_local(source), open_local(source))


@pytest.mark.parametrize("locked", ["source", "target"])
def test_a_repository_that_is_being_pruned_is_left_alone(source: Path, tmp_path: Path, locked: str) -> None:
    create(tmp_path / "target")
    places = {"source": source, "target": tmp_path / "target"}
    with (
        open_local(places[locked]).take_lock(SystemClock(), exclusive=True),
        pytest.raises(LockedError),
    ):
        copy(open_local(source), open_local(tmp_path / "target"))
    assert open_local(tmp_path / "target").snapshots() == []


def test_a_damaged_snapshot_is_told_and_the_others_are_copied(source: Path, tmp_path: Path) -> None:
    """A blob that only the oldest snapshot needs is damaged."""
    repository = open_local(source)
    oldest, *others = repository.snapshots()
    alone = create(tmp_path / "alone")
    run_copy(repository, alone, others, SystemClock(), ignore)
    shared = {(blob.type, blob.id) for _, blob in alone.load_index()}
    pack, blob = next(
        (pack, blob) for pack, blob in repository.load_index()
        if blob.type is BlobType.DATA and (blob.type, blob.id) not in shared
    )  # fmt: skip
    path = source / FileKind.PACK.key(pack)
    path.chmod(0o600)
    flip(path, blob.offset + 20)
    target = create(tmp_path / "target")
    report = copy(open_local(source), target)
    assert report.exit_code is ExitCode.CORRUPT
    assert [(outcome.snapshot.id, outcome.copy is not None) for outcome in report.copied] == [
        (oldest.id, False),
        (others[0].id, True),
        (others[1].id, True),
    ]
    assert f"{pack.hex()}: blob {blob.id.hex()[:8]}" in (report.copied[0].problem or "")
    restic.assert_accepts(NEWEST, tmp_path / "target")


def test_a_missing_blob_stops_every_snapshot_that_needs_it(source: Path, tmp_path: Path) -> None:
    """The trees that two snapshots share are walked once; the damage must be met by both."""
    repository = open_local(source)
    snapshots = repository.snapshots()
    always = _content_of(repository, snapshots[0].tree, b"always")
    packs = [
        (pack, [blob for blob in blobs if blob.id != always])
        for file in repository.files(FileKind.INDEX)
        for pack, blobs in repository.index_file(file.id)
    ]
    for file in list(repository.files(FileKind.INDEX)):
        repository.remove(FileKind.INDEX, file.id)
    repository.save_index(packs)
    target = create(tmp_path / "target")
    report = copy(open_local(source), target)
    assert len(report.copied) == 3
    assert all(outcome.problem and "no index" in outcome.problem for outcome in report.copied)
    assert target.snapshots() == []


def test_damage_in_a_tree_that_snapshots_share_is_met_by_each_of_them(tmp_path: Path) -> None:
    handmade = Handmade(tmp_path / "source")
    shared = handmade.folder("shared", node("file", "file", content=["cd" * 32]))
    for number in range(2):
        root = handmade.tree(shared, handmade.file("z", bytes([number])))
        handmade.snapshot(root, NOON + timedelta(hours=number))
    target = create(tmp_path / "target")
    report = run_copy(handmade.repository, target, None, SystemClock(), ignore)
    assert [outcome.copy for outcome in report.copied] == [None, None]
    assert target.snapshots() == []


def _content_of(repository: Repository, tree: bytes, name: bytes) -> bytes:
    from drctl.repository.tree import decode_tree

    repository.load_index()
    for entry in decode_tree(repository.load_tree(tree), "tree"):
        if entry.name == name:
            return entry.content[0]
        if entry.subtree and (found := _content_of(repository, entry.subtree, name)):
            return found
    return b""


def test_which_snapshots_are_missing_is_decided_with_a_reason(source: Path) -> None:
    snapshots = open_local(source).snapshots()
    verdicts = plan_copy(reversed(snapshots), snapshots[1:2])
    assert [verdict.snapshot.id for verdict in verdicts] == [snapshot.id for snapshot in snapshots]
    assert [verdict.is_missing for verdict in verdicts] == [True, False, True]
    assert all(verdict.reason for verdict in verdicts)


# --- faults


def test_the_snapshot_is_written_last(source: Path, tmp_path: Path) -> None:
    target = create(tmp_path / "target")
    storage = FaultyStorage(target.storage)
    target.storage = storage
    copy(open_local(source), target)
    log = [folder for folder in storage.log if folder != "locks"]
    assert log[-3:] == ["snapshots"] * 3
    assert set(log[:-4]) == {"data"}
    assert log[-4] == "index"


def _full() -> None:
    raise StorageError("no space left on device")


def _unreachable() -> None:
    raise UnreachableError("503 slow down")


@pytest.mark.parametrize("fault", [_full, _unreachable])
def test_a_target_that_fails_at_any_save_is_sound_and_a_rerun_finishes(
    source: Path, tmp_path: Path, fault: object
) -> None:
    directory = tmp_path / "target"
    create(directory)
    failures = 0
    for at in range(1, 40):
        target = open_local(directory)
        target.storage = FaultyStorage(target.storage, at, fault)  # type: ignore[arg-type]
        try:
            copy(open_local(source), target)
        except DrctlError as error:
            failures += 1
            assert not isinstance(error, CorruptError), error
            if at % 4 == 0:
                restic.assert_accepts(NEWEST, directory)
            continue
        break
    assert failures > 4, "the faults were not met: this test proves nothing"
    restic.assert_accepts(NEWEST, directory)
    assert contents(NEWEST, directory, tmp_path) == contents(NEWEST, source, tmp_path)


def test_kill_9_at_random_moments_leaves_a_target_that_the_next_run_completes(
    source: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "target"
    create(directory)
    rehearsal = tmp_path / "rehearsal"
    create(rehearsal)
    began = time.monotonic()
    assert start_copying(source, rehearsal).wait() == 0
    whole_s = time.monotonic() - began
    seed = random.SystemRandom().randrange(10**6)
    moments = random.Random(seed)
    killed = 0
    for _ in range(6):
        run = start_copying(source, directory)
        try:
            # well before the end: the rehearsal may have met a busier machine
            run.wait(timeout=moments.uniform(0.1, 0.5) * whole_s)
            break
        except subprocess.TimeoutExpired:
            os.kill(run.pid, signal.SIGKILL)
            run.wait()
            killed += 1
        restic.run(NEWEST, directory, "unlock", "-q")
        restic.assert_accepts(NEWEST, directory)
    copy(open_local(source), open_local(directory))
    restic.assert_accepts(NEWEST, directory)
    assert contents(NEWEST, directory, tmp_path) == contents(NEWEST, source, tmp_path)
    assert len(open_local(directory).snapshots()) == 3
    assert killed, f"no run was killed (seed {seed}): this test proved nothing"


def start_copying(source: Path, target: Path) -> subprocess.Popen[bytes]:
    script = (
        "from pathlib import Path; from tests.workflow.test_copy import copy, open_local;"
        f"copy(open_local(Path({str(source)!r})), open_local(Path({str(target)!r})))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen([sys.executable, "-c", script], env=environment, start_new_session=True)


def test_no_worker_outlives_a_killed_copy(source: Path, tmp_path: Path) -> None:
    create(tmp_path / "target")
    run = start_copying(source, tmp_path / "target")
    children: list[str] = []
    end = time.monotonic() + 20
    while not children and run.poll() is None and time.monotonic() < end:
        try:
            children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        except OSError:
            break
    run.kill()
    run.wait()
    assert children, "no worker was seen: this test proves nothing"
    while any(_lives(child) for child in children):
        assert time.monotonic() < end + 10
        time.sleep(0.01)


def _lives(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
