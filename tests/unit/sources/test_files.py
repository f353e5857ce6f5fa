"""The local file tree against real files of every kind, and against what happens to them meanwhile."""

from __future__ import annotations

import os
import pickle
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drctl.errors import UsageError
from drctl.ports import Entry, SwappedError
from drctl.sources import anchor as anchors
from drctl.sources.files import FilesOptions, FilesSource

ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="mknod, mount and setpriv need root")


def source(*paths: Path | str, **options: Any) -> FilesSource:
    return FilesSource(FilesOptions(paths=tuple(str(path) for path in paths), **options))


def names(found: FilesSource, path: Path) -> list[bytes]:
    with found.open_directory(os.fsencode(path)) as directory:
        return [entry.name for entry in directory.entries]


def walk(found: FilesSource) -> Iterator[tuple[bytes, Entry]]:
    """Every entry below the roots that are directories, with its path."""
    todo = list(found.roots)
    while todo:
        path = todo.pop()
        with found.open_directory(path) as directory:
            assert not directory.unreadable
            for entry in directory.entries:
                full = os.path.join(path, entry.name)
                yield full, entry
                if stat.S_ISDIR(entry.mode):
                    todo.append(full)


def content(found: FilesSource, path: Path, size: int = 7) -> bytes:
    with found.open_directory(os.fsencode(path.parent)) as directory:
        entry = next(entry for entry in directory.entries if entry.name == os.fsencode(path.name))
        reader = directory.open(entry)
        buffer, whole = memoryview(bytearray(size)), b""
        while count := reader.readinto(buffer):
            whole += bytes(buffer[:count])
        reader.close()
        return whole


def test_entries_are_what_lstat_says_sorted_by_bytes(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"two")
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "B").mkdir()
    os.link(tmp_path / "b", tmp_path / "c")
    with source(tmp_path).open_directory(os.fsencode(tmp_path)) as directory:
        assert [entry.name for entry in directory.entries] == [b"B", b"a", b"b", b"c"]
        for entry in directory.entries:
            seen = os.lstat(tmp_path / os.fsdecode(entry.name))
            assert entry == Entry(
                entry.name, seen.st_mode, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino,
                seen.st_dev, seen.st_nlink, seen.st_uid, seen.st_gid, seen.st_rdev,
            )  # fmt: skip
        by_name = {entry.name: entry for entry in directory.entries}
        assert by_name[b"b"].links == 2
        assert by_name[b"b"].inode == by_name[b"c"].inode
        assert directory.read_link(by_name[b"a"]) == b"b"


def test_names_of_any_bytes_are_listed_and_read(tmp_path: Path) -> None:
    odd = [b"\xff\xfe", b"new\nline", b"\xf0\x9f\x98\x80", b"\xee\x80\x80", b"-rf", b" ", b"\x1b[31m"]
    for name in odd:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(name)
    found = source(tmp_path)
    assert names(found, tmp_path) == sorted(odd)
    for name in odd:
        assert content(found, tmp_path / os.fsdecode(name)) == name


@needs_root
def test_special_files_are_entries_and_sockets_are_left_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    os.mknod(tmp_path / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mknod(tmp_path / "disk", stat.S_IFBLK | 0o600, os.makedev(7, 200))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        found = {entry.name: entry for _, entry in walk(source(tmp_path))}
    assert sorted(found) == [b"disk", b"fifo", b"null"]
    assert found[b"null"].rdev == os.makedev(1, 3)
    assert found[b"disk"].rdev == os.makedev(7, 200)
    assert stat.S_ISFIFO(found[b"fifo"].mode)


def test_a_socket_named_as_a_root_is_reported(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        with source(tmp_path / "s").open_root(os.fsencode(tmp_path / "s")) as directory:
            assert directory.entries == []
            assert directory.unreadable == [(b"s", "a socket cannot be backed up")]


# --- extended attributes and owners ------------------------------------------------------


def test_extended_attributes_and_acls_are_read_by_name_and_by_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x")
    os.setxattr(path, b"user.two", b"\x00\xff")
    os.setxattr(path, b"user.one", b"")
    subprocess.run(["setfacl", "-m", "u:12345:rwx", path], check=True)
    with source(tmp_path).open_directory(os.fsencode(tmp_path)) as directory:
        found = directory.extended_attributes(directory.entries[0])
        reader = directory.open(directory.entries[0])
        assert reader.extended_attributes() == found
        reader.close()
    assert [name for name, _ in found] == [os.fsencode(name) for name in os.listxattr(path)]
    assert {name for name, _ in found} == {b"system.posix_acl_access", b"user.one", b"user.two"}
    assert dict(found)[b"user.two"] == b"\x00\xff"
    assert (12345).to_bytes(4, "little") in dict(found)[b"system.posix_acl_access"]


@needs_root
def test_extended_attributes_of_a_symlink_are_its_own(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"x")
    os.setxattr(tmp_path / "target", b"user.secret", b"1")
    (tmp_path / "link").symlink_to("target")
    os.setxattr(tmp_path / "link", b"trusted.mine", b"2", follow_symlinks=False)
    with source(tmp_path).open_directory(os.fsencode(tmp_path)) as directory:
        assert directory.extended_attributes(directory.entries[0]) == [(b"trusted.mine", b"2")]


def test_a_file_system_without_extended_attributes_has_none() -> None:
    with source("/proc/self").open_root(b"/proc/self/fd") as directory:
        assert list(directory.extended_attributes(directory.entries[0])) == []


def test_owner_names_are_looked_up_and_unknown_ones_are_empty(tmp_path: Path) -> None:
    with source(tmp_path).open_directory(os.fsencode(tmp_path)) as directory:
        assert directory.owner_names(0, 0) == ("root", "root")
        assert directory.owner_names(4_000_000_000, 4_000_000_001) == ("", "")


# --- holes, growth, change ---------------------------------------------------------------


def test_holes_are_told_and_skipping_them_yields_the_data(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as sparse:
        sparse.seek(1 << 20)
        sparse.write(b"a" * 4096)
        sparse.truncate(8 << 20)
    with source(tmp_path).open_directory(os.fsencode(tmp_path)) as directory:
        reader = directory.open(directory.entries[0])
        assert reader.hole(0) == 1 << 20
        assert reader.hole(4096) == (1 << 20) - 4096
        reader.skip(reader.hole(0))
        assert reader.hole(1 << 20) == 0
        assert reader.hole((1 << 20) + 1) == 0
        buffer = memoryview(bytearray(4096))
        assert reader.readinto(buffer) == 4096
        assert bytes(buffer) == b"a" * 4096
        end = (1 << 20) + 4096
        assert reader.hole(end) == (8 << 20) - end
        assert reader.hole(8 << 20) == 0
        reader.skip(reader.hole(end))
        assert reader.readinto(buffer) == 0
        reader.close()


def test_a_full_file_is_never_asked_for_holes(tmp_path: Path) -> None:
    (tmp_path / "full").write_bytes(bytes(100_000))
    with source(tmp_path).open_directory(os.fsencode(tmp_path)) as directory:
        reader = directory.open(directory.entries[0])
        assert reader.hole(0) == 0
        reader.close()


@pytest.mark.parametrize("change", ["grow", "shrink", "rewrite"])
def test_a_file_that_changes_during_the_read_is_flagged(tmp_path: Path, change: str) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"0123456789" * 1000)
    with source(tmp_path).open_directory(os.fsencode(tmp_path)) as directory:
        reader = directory.open(directory.entries[0])
        buffer = memoryview(bytearray(1000))
        assert reader.readinto(buffer) == 1000
        assert not reader.changed()
        os.utime(path, ns=(1, 1))
        if change == "grow":
            path.open("ab").write(b"more")
        elif change == "shrink":
            os.truncate(path, 500)
            assert reader.readinto(buffer) == 0
        else:
            path.open("r+b").write(b"X")
        assert reader.changed()
        reader.close()


def test_reading_does_not_touch_the_access_time(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x")
    os.utime(path, ns=(10**9, 2 * 10**9))  # older than mtime: relatime would update it
    assert content(source(tmp_path), path) == b"x"
    assert os.stat(path).st_atime_ns == 10**9


# --- swapped, vanished, unreadable -------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["symlink", "link to itself", "fifo", "socket", "directory", "file", "device"]
)
def test_a_file_swapped_after_the_listing_is_flagged_and_nothing_hangs(tmp_path: Path, kind: str) -> None:
    path, keep = tmp_path / "f", tmp_path / "keep"
    path.write_bytes(b"listed")
    keep.write_bytes(b"other")
    with source(tmp_path).open_directory(os.fsencode(tmp_path)) as directory:
        entry = directory.entries[0]
        path.rename(tmp_path / "away")
        with socket.socket(socket.AF_UNIX) as server:
            match kind:
                case "symlink":
                    path.symlink_to("/etc/passwd")
                case "link to itself":
                    path.symlink_to(tmp_path / "away")
                case "fifo":
                    os.mkfifo(path)
                case "socket":
                    server.bind(str(path))
                case "directory":
                    path.mkdir()
                case "file":
                    keep.rename(path)
                case "device":
                    if not ROOT:
                        pytest.skip("mknod needs root")
                    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))
            before = len(os.listdir("/proc/self/fd"))
            with pytest.raises(SwappedError):
                directory.open(entry)
            assert len(os.listdir("/proc/self/fd")) == before


def test_a_fifo_that_got_the_inode_of_the_listed_file_is_flagged(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f")
    with source(tmp_path).open_directory(os.fsencode(tmp_path)) as directory:
        as_if_listed = directory.entries[0]._replace(mode=stat.S_IFREG | 0o644)
        with pytest.raises(SwappedError):
            directory.open(as_if_listed)


def test_a_vanished_file_is_a_file_not_found(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    with source(tmp_path).open_directory(os.fsencode(tmp_path)) as directory:
        entry = directory.entries[0]
        (tmp_path / "f").unlink()
        with pytest.raises(FileNotFoundError):
            directory.open(entry)


def test_a_link_swapped_for_a_file_is_flagged(tmp_path: Path) -> None:
    (tmp_path / "l").symlink_to("x")
    with source(tmp_path).open_directory(os.fsencode(tmp_path)) as directory:
        entry = directory.entries[0]
        (tmp_path / "l").unlink()
        (tmp_path / "l").write_bytes(b"x")
        with pytest.raises(SwappedError):
            directory.read_link(entry)


@pytest.mark.parametrize("open_below", [None, anchors.open_by_steps])
def test_a_directory_swapped_for_a_symlink_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_below: anchors.OpenBelow | None
) -> None:
    if open_below:
        monkeypatch.setattr(anchors, "choose_open_below", lambda: open_below)
    (tmp_path / "root/a/b").mkdir(parents=True)
    (tmp_path / "secret/b").mkdir(parents=True)
    found = source(tmp_path / "root")
    assert names(found, tmp_path / "root/a/b") == []
    (tmp_path / "root/a").rename(tmp_path / "gone")
    (tmp_path / "root/a").symlink_to(tmp_path / "secret")
    for path in ("root/a/b", "root/a"):
        with pytest.raises(SwappedError):
            found.open_directory(os.fsencode(tmp_path / path))
    with pytest.raises(FileNotFoundError):
        found.open_directory(os.fsencode(tmp_path / "root/none"))


def test_a_name_that_vanishes_while_listing_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").write_bytes(b"x")
    listed = os.listdir
    monkeypatch.setattr(os, "listdir", lambda where: [*listed(where), "gone"])
    with source(tmp_path).open_directory(os.fsencode(tmp_path)) as directory:
        assert [entry.name for entry in directory.entries] == [b"here"]
        assert directory.unreadable == [(b"gone", "no such file or directory")]


@needs_root
def test_what_an_ordinary_user_may_not_read_is_an_error_at_its_place(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent.owner() == "root" and len(parent.parts) > 2:
            parent.chmod(parent.stat().st_mode | 0o055)
    (tmp_path / "closed").mkdir(mode=0o700)
    (tmp_path / "listed").mkdir()
    (tmp_path / "listed/x").write_bytes(b"x")
    (tmp_path / "listed").chmod(0o744)  # may be listed, not looked into
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "file").chmod(0o600)
    (tmp_path / "open").write_bytes(b"x")
    script = """
import os, sys
from drctl.sources.files import FilesOptions, FilesSource
root = os.fsencode(sys.argv[1])
source = FilesSource(FilesOptions(paths=(sys.argv[1],)))
directory = source.open_directory(root)
by_name = {entry.name: entry for entry in directory.entries}
assert sorted(by_name) == [b"closed", b"file", b"listed", b"open"], by_name
for name in (b"file", b"closed"):
    try:
        directory.open(by_name[name]) if name == b"file" else source.open_directory(root + b"/closed")
    except PermissionError as error:
        print(name.decode(), error.errno)
directory.open(by_name[b"open"]).close()
print(source.open_directory(root + b"/listed").unreadable)
"""
    done = subprocess.run(
        [
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            sys.executable,
            "-c",
            script,
            tmp_path,
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["file 13", "closed 13", "[(b'x', 'permission denied')]"]


def test_a_file_under_a_lease_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "leased"
    path.write_bytes(b"x")
    holder = subprocess.Popen(
        [sys.executable, "-c", """
import fcntl, os, signal, sys
descriptor = os.open(sys.argv[1], os.O_RDWR)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGIO])
fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
signal.sigwait([signal.SIGIO])
fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
"""  , str(path)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout
    try:
        assert holder.stdout.readline() == "held\n"
        assert content(source(tmp_path), path) == b"x"
        assert holder.wait(10) == 0
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


# --- roots -------------------------------------------------------------------------------


def test_roots_are_normalised_and_one_inside_another_is_dropped() -> None:
    found = source("/usr/share/", "//usr//share/doc", "/usr/sharer", "/etc/./passwd", "/usr/share")
    assert list(found.roots) == [b"/etc/passwd", b"/usr/share", b"/usr/sharer"]
    assert list(source("/", "/usr").roots) == [b"/"]


@pytest.mark.parametrize("path", ["", "etc", "./etc", "/etc/../usr", "/a\0b"])
def test_a_path_that_is_not_absolute_and_plain_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        FilesOptions(paths=(path,))


def test_the_whole_file_system_is_a_root() -> None:
    found = source("/")
    with found.open_root(b"/") as directory:
        assert [(entry.name, entry.inode) for entry in directory.entries] == [(b".", os.lstat("/").st_ino)]
    with found.open_directory(b"/") as directory:
        assert {b"etc", b"usr"} <= {entry.name for entry in directory.entries}
    assert b"passwd" in names(found, Path("/etc"))


def test_a_root_may_be_a_file_or_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    (tmp_path / "beside").write_bytes(b"y")
    (tmp_path / "l").symlink_to("f")
    found = source(tmp_path / "f", tmp_path / "l")
    with found.open_root(os.fsencode(tmp_path / "f")) as directory:
        assert [entry.name for entry in directory.entries] == [b"f"]
        directory.open(directory.entries[0]).close()
    with found.open_root(os.fsencode(tmp_path / "l")) as directory:
        assert directory.read_link(directory.entries[0]) == b"f"
    with pytest.raises(FileNotFoundError):
        source(tmp_path / "none").open_root(os.fsencode(tmp_path / "none"))


def test_above_a_root_a_symlink_shows_the_directory_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "real/data").mkdir(parents=True)
    os.setxattr(tmp_path / "real", b"user.of", b"real")
    (tmp_path / "way").symlink_to("real")
    found = source(tmp_path / "way/data")
    with found.open_root(os.fsencode(tmp_path / "way")) as directory:
        entry = directory.entries[0]
        assert (entry.name, entry.inode) == (b"way", (tmp_path / "real").stat().st_ino)
        assert list(directory.extended_attributes(entry)) == [(b"user.of", b"real")]
    assert names(found, tmp_path / "way/data") == []


def test_a_path_outside_the_roots_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="in no root"):
        source(tmp_path).open_directory(os.fsencode(tmp_path) + b"x")


@pytest.mark.parametrize("open_below", [None, anchors.open_by_steps])
def test_a_tree_deeper_than_path_max_is_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_below: anchors.OpenBelow | None
) -> None:
    if open_below:
        monkeypatch.setattr(anchors, "choose_open_below", lambda: open_below)
    part, depth = "d" * 200, 60  # 12,000 bytes
    current = os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(part, dir_fd=current)
        deeper = os.open(part, os.O_RDONLY, dir_fd=current)
        os.close(current)
        current = deeper
    last = os.open("end", os.O_CREAT | os.O_WRONLY, dir_fd=current)
    os.write(last, b"here")
    os.close(last)
    os.close(current)
    found = source(tmp_path)
    paths = [path for path, _ in walk(found)]
    assert len(paths) == depth + 1
    with found.open_directory(os.path.dirname(max(paths, key=len))) as directory:
        reader = directory.open(directory.entries[0])
        buffer = memoryview(bytearray(9))
        assert reader.readinto(buffer) == 4
        assert list(directory.extended_attributes(directory.entries[0])) == []
        reader.close()
    subprocess.run(["rm", "-rf", tmp_path / part], check=True)


def test_a_source_travels_to_another_process_and_leaks_no_descriptor(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    before = len(os.listdir("/proc/self/fd"))
    found = source(tmp_path, exclude=("*.o",))
    assert names(found, tmp_path) == [b"f"]
    copy = pickle.loads(pickle.dumps(found))
    assert names(copy, tmp_path) == [b"f"]
    child = os.fork()
    if child == 0:
        os._exit(0 if names(found, tmp_path) == [b"f"] else 1)
    assert os.waitpid(child, 0)[1] == 0
    found.close()
    copy.close()
    assert len(os.listdir("/proc/self/fd")) == before


# --- rules -------------------------------------------------------------------------------


def test_excluded_directories_are_not_listed_and_the_last_pattern_decides(tmp_path: Path) -> None:
    for name in ("a.tmp", "keep.tmp", "x", "cache", "sub/cache/x", "sub/deep/here", "deep/here"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = source(tmp_path, exclude=("*.tmp", "!keep.tmp", "cache/", f"{tmp_path}/sub/deep"))
    assert sorted(os.path.relpath(path, os.fsencode(tmp_path)) for path, _ in walk(found)) == [
        b"cache", b"deep", b"deep/here", b"keep.tmp", b"sub", b"x",
    ]  # fmt: skip


def test_a_root_named_in_the_plan_is_kept_whatever_matches_it_or_its_parents(tmp_path: Path) -> None:
    (tmp_path / "tmp/data").mkdir(parents=True)
    (tmp_path / "tmp/data/f").write_bytes(b"x")
    found = source(tmp_path / "tmp/data", exclude=("tmp/", "data"))
    assert names(found, tmp_path / "tmp/data") == [b"f"]


def test_a_path_named_and_excluded_inside_another_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="excluded in"):
        source(tmp_path, tmp_path / ".cache/important", exclude=(".cache/",))


def test_an_exclude_file_adds_patterns_and_a_missing_one_is_refused(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("a", "b", "c\xe9"):
        (tree / name).write_bytes(b"x")
    (tmp_path / "patterns").write_text("# comment\n\na\r\nc?\n!b\n")
    assert names(source(tree, exclude=("b",), exclude_file=str(tmp_path / "patterns")), tree) == [b"b"]
    with pytest.raises(UsageError, match="No such file"):
        source(tree, exclude_file=str(tmp_path / "none"))


def test_a_cache_keeps_its_valid_tag_only(tmp_path: Path) -> None:
    signature = "Signature: 8a477f597d28d172789f06886806bc55"
    for name, text in (("real", signature + "\n# more"), ("fake", "Signature: 0"), ("short", "")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "CACHEDIR.TAG").write_text(text)
        (tmp_path / name / "data").write_text("x")
    (tmp_path / "link").mkdir()
    (tmp_path / "link/data").write_text("x")
    (tmp_path / "link/CACHEDIR.TAG").symlink_to("../real/CACHEDIR.TAG")
    found = source(tmp_path, exclude_caches=True)
    assert names(found, tmp_path / "real") == [b"CACHEDIR.TAG"]
    for name in ("fake", "short", "link"):
        assert names(found, tmp_path / name) == [b"CACHEDIR.TAG", b"data"]
    assert names(source(tmp_path), tmp_path / "real") == [b"CACHEDIR.TAG", b"data"]


def test_a_directory_with_a_marker_keeps_the_marker_only(tmp_path: Path) -> None:
    (tmp_path / ".nobackup").write_text("")
    (tmp_path / "data").write_text("x")
    assert names(source(tmp_path, exclude_if_present=(".nobackup",)), tmp_path) == [b".nobackup"]


@needs_root
def test_a_mount_point_is_kept_empty_unless_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    (tmp_path / "file").write_bytes(b"x")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path / "mnt"], check=True)
    try:
        (tmp_path / "mnt/inside").mkdir()
        (tmp_path / "mnt/inside/f").write_bytes(b"x")
        within = source(tmp_path, one_file_system=True)
        assert names(within, tmp_path) == [b"file", b"mnt"]
        assert names(within, tmp_path / "mnt") == []
        assert names(source(tmp_path), tmp_path / "mnt") == [b"inside"]
        both = source(tmp_path, tmp_path / "mnt", one_file_system=True)
        assert names(both, tmp_path / "mnt") == [b"inside"]
        assert names(both, tmp_path / "mnt/inside") == [b"f"]
        root = source(tmp_path / "mnt", one_file_system=True)
        assert names(root, tmp_path / "mnt/inside") == [b"f"]
    finally:
        subprocess.run(["umount", tmp_path / "mnt"], check=True)
