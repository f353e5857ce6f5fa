"""Backups of local files, judged by stock restic."""

from __future__ import annotations

import os
import random
import socket
import subprocess
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from drctl.clock import SystemClock
from drctl.domain.events import Event, Noticed
from drctl.domain.plan import Chunker
from drctl.errors import ExitCode, SourceError
from drctl.repository.archive_job import Trouble
from drctl.repository.snapshot import Snapshot
from drctl.repository.tree import decode_tree
from drctl.sources.files import FilesOptions, FilesSource
from tests.compare import differences
from tests.workflow.backups import Place, settle, write_tree


def test_stock_restic_finds_no_fault_and_restores_the_same_bytes(place: Place, tmp_path: Path) -> None:
    write_tree(place.data)
    report = place.back_up()
    place.restic().run("check", "--read-data")
    assert differences(place.data, place.restored(tmp_path / "out"), top=True) == []
    assert report.exit_code is ExitCode.OK
    assert report.counts.files_new == 40


def test_everything_a_file_system_holds_comes_back(place: Place, tmp_path: Path) -> None:
    data = place.data
    (data / "empty").touch()
    (data / "small").write_bytes(b"small")
    (data / "block").write_bytes(random.Random(1).randbytes(700_000))
    (data / "large").write_bytes(random.Random(2).randbytes(9_000_000))
    os.link(data / "large", data / "hard link")
    os.symlink("nowhere", data / "symlink")
    os.mkfifo(data / "fifo")
    os.mknod(data / "null", 0o20644, os.makedev(1, 3))
    os.mknod(data / "loop", 0o60600, os.makedev(7, 99))
    with open(os.fsencode(data) + b'/\xff"\\\n<&>\xe2\x80\xa8', "wb") as file:
        file.write(b"hostile name")
    with open(data / "sparse", "wb") as file:
        file.truncate(20_000_000)
    (data / "setuid").touch()
    os.chmod(data / "setuid", 0o4755)
    os.chmod(data, 0o1777)
    os.setxattr(data / "small", "user.note", b"\0\xff")
    subprocess.run(["setfacl", "-m", "u:nobody:r", str(data / "small")], check=True)
    os.chown(data / "small", 12345, 23456)
    for name, stamp in (("empty", -5 * 10**9 + 1), ("small", 4_500_000_000_123_456_789)):
        os.utime(data / name, ns=(stamp, stamp))
    (data / "folder").mkdir()
    report = place.back_up()
    assert report.problems == ()
    place.restic().run("check", "--read-data")
    assert differences(data, place.restored(tmp_path / "out"), top=True) == []


def test_sockets_are_left_out_and_nothing_else(place: Place, tmp_path: Path) -> None:
    (place.data / "file").write_bytes(b"x")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place.data / "socket"))
        report = place.back_up()
    assert report.exit_code is ExitCode.OK
    assert os.listdir(place.restored(tmp_path / "out")) == ["file"]


def _tree_of(place: Place, snapshot: Snapshot) -> bytes:
    """The id of the data directory's tree. (The directories above it change with other tests.)"""
    repository, tree = place.open(), snapshot.tree
    for name in os.fsencode(place.data).split(b"/")[1:]:
        nodes = decode_tree(repository.load_tree(tree), "test")
        tree = next(node.subtree for node in nodes if node.name == name) or b""
    return tree


def test_restic_finds_all_of_it_already_stored_down_to_the_trees(place: Place) -> None:
    write_tree(place.data)
    ours = place.back_up().snapshot
    place.restic().run("backup", str(place.data))
    theirs = place.open().snapshots()[-1]
    assert theirs.id != ours.id
    assert _tree_of(place, theirs) == _tree_of(place, ours)
    assert theirs.tree != b"" != ours.tree


def test_what_restic_stored_is_not_stored_again(place: Place) -> None:
    write_tree(place.data)
    place.restic().run("backup", str(place.data))
    theirs = place.open().snapshots()[-1]
    report = place.back_up(full=True)
    assert report.counts.data_blobs == 0
    assert _tree_of(place, theirs) == _tree_of(place, report.snapshot)


def test_the_first_backup_after_restic_does_not_read_unchanged_files_again(place: Place) -> None:
    write_tree(place.data)
    place.restic().run("backup", "--host", "host", str(place.data))
    report = place.back_up()
    assert (report.counts.files_unmodified, report.counts.files_changed) == (40, 0)


def test_an_unchanged_tree_is_not_read_again(place: Place) -> None:
    write_tree(place.data)
    first = place.back_up().snapshot
    report = place.back_up()
    assert (report.counts.files_unmodified, report.counts.data_blobs) == (40, 0)
    assert report.counts.dirs_unmodified >= 10
    assert _tree_of(place, report.snapshot) == _tree_of(place, first)


def test_a_full_backup_reads_every_byte_and_stores_none_of_it_again(place: Place) -> None:
    write_tree(place.data)
    place.back_up()
    report = place.back_up(full=True)
    assert report.counts.files_unmodified == 0
    assert report.counts.files_changed == 40
    assert report.counts.data_blobs == 0
    assert report.snapshot.mode == "full"


def test_a_changed_file_is_stored_and_its_neighbours_are_kept(place: Place, tmp_path: Path) -> None:
    write_tree(place.data)
    place.back_up()
    (place.data / "folder-1/deeper/3.txt").write_bytes(b"other")
    report = place.back_up()
    assert (report.counts.files_changed, report.counts.files_unmodified) == (1, 39)
    assert differences(place.data, place.restored(tmp_path / "out"), top=True) == []


def test_a_change_in_place_that_forges_size_and_mtime_is_seen(place: Place, tmp_path: Path) -> None:
    file = place.data / "file"
    file.write_bytes(b"before")
    settle()
    place.back_up()
    stamp = file.stat().st_mtime_ns
    file.write_bytes(b"forged")
    os.utime(file, ns=(stamp, stamp))
    place.back_up()
    assert (place.restored(tmp_path / "out") / "file").read_bytes() == b"forged"


class _SlowClock(SystemClock):
    """A clock an hour behind: every file was changed after it says the backup began."""

    def now(self) -> datetime:
        return super().now() - timedelta(hours=1)


def test_a_file_whose_stamp_is_not_older_than_the_last_backup_is_read_again(place: Place) -> None:
    # it may have changed once more within the same kernel tick, after it was read
    write_tree(place.data)
    place.back_up(clock=_SlowClock())
    report = place.back_up()
    assert (report.counts.files_changed, report.counts.files_unmodified) == (40, 0)


def test_a_blob_that_went_missing_is_stored_again_by_the_next_incremental(
    place: Place, tmp_path: Path
) -> None:
    write_tree(place.data)
    place.back_up()
    for index in (place.repository / "index").iterdir():
        index.unlink()  # as if all blobs were unknown
    report = place.back_up()
    assert report.counts.data_blobs == 40
    assert differences(place.data, place.restored(tmp_path / "out"), top=True) == []


def test_a_huge_directory_is_shared_among_workers_and_complete(place: Place, tmp_path: Path) -> None:
    for number in range(5000):
        (place.data / f"{number}").write_bytes(b"%d" % number)
    (place.data / "sub").mkdir()
    settle()
    report = place.back_up()
    assert report.counts.files_new == 5000
    assert differences(place.data, place.restored(tmp_path / "out"), top=True) == []
    assert place.back_up().counts.files_unmodified == 5000


def test_large_files_are_cut_by_content_so_that_an_insertion_costs_little(
    place: Place, tmp_path: Path
) -> None:
    content = random.Random(3).randbytes(24_000_000)
    (place.data / "large").write_bytes(content)
    first = place.back_up()
    (place.data / "large").write_bytes(content[:11_000_000] + b"inserted" + content[11_000_000:])
    second = place.back_up()
    assert first.counts.bytes_added > 24_000_000
    assert second.counts.bytes_added < 12_000_000
    place.restic().run("check", "--read-data")
    assert differences(place.data, place.restored(tmp_path / "out"), top=True) == []


def test_several_roots_and_single_files_hang_in_one_tree(place: Place, tmp_path: Path) -> None:
    write_tree(place.data)
    lone = tmp_path / "lone file"
    lone.write_bytes(b"lone")
    large = tmp_path / "large file"
    large.write_bytes(random.Random(4).randbytes(9_000_000))
    source = FilesSource(
        FilesOptions((str(place.data / "folder-1"), str(place.data / "folder-3"), str(lone), str(large)))
    )
    report = place.back_up(source)
    assert report.problems == ()
    out = place.restored(tmp_path / "out")
    assert sorted(os.listdir(out)) == ["folder-1", "folder-3"]
    assert differences(place.data / "folder-1", out / "folder-1", top=True) == []
    assert sorted(os.listdir(out.parent)) == ["data", "large file", "lone file"]
    assert (out.parent / "large file").read_bytes() == large.read_bytes()


def test_a_root_that_is_missing_is_listed_and_the_others_are_stored(place: Place) -> None:
    write_tree(place.data)
    source = FilesSource(FilesOptions((str(place.data), "/nowhere/at/all")))
    report = place.back_up(source)
    assert report.exit_code is ExitCode.INCOMPLETE
    assert [(problem.path, problem.trouble) for problem in report.problems] == [
        (b"/nowhere/at/all", Trouble.UNREADABLE)
    ]
    assert not report.snapshot.is_complete
    assert report.counts.files_new == 40


def test_no_snapshot_is_made_where_nothing_could_be_read(place: Place) -> None:
    with pytest.raises(SourceError, match="/nowhere/at/all"):
        place.back_up(FilesSource(FilesOptions(("/nowhere/at/all",))))
    assert place.open().snapshots() == []


def test_the_snapshot_says_when_reading_began_and_what_it_was_for(place: Place) -> None:
    write_tree(place.data)
    snapshot = place.back_up(full=True).snapshot
    assert snapshot.summary is not None
    assert snapshot.time == snapshot.summary.backup_start < snapshot.summary.backup_end
    assert (snapshot.service, snapshot.source, snapshot.mode) == ("service", "files", "full")
    assert snapshot.is_complete
    assert place.back_up().snapshot.parent == snapshot.id


def test_a_change_of_the_chunker_is_warned_about(place: Place) -> None:
    write_tree(place.data)
    place.back_up()
    snapshot = place.open().snapshots()[0]
    repository = place.open()
    repository.save_snapshot(snapshot.with_facts(chunker=Chunker.RESTIC.value))
    assert snapshot.id
    (place.repository / "snapshots" / snapshot.id.hex()).unlink()
    events: list[Event] = []
    place.back_up(emit=events.append)
    notices = [event for event in events if isinstance(event, Noticed)]
    assert [notice.message for notice in notices] == ["chunker changed from restic to fastcdc"]


def test_no_lock_is_left_behind(place: Place) -> None:
    write_tree(place.data)
    place.back_up()
    assert os.listdir(place.repository / "locks") == []
