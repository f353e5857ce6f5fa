"""A directory with everything a file system has: what a backup must carry."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
from pathlib import Path

AS_ROOT = os.geteuid() == 0


def make_rich_tree(top: Path) -> None:
    """Every type of entry, odd names, odd times, hard links, holes, extended attributes and ACLs; as
    root also devices, foreign owners, setuid and file capabilities."""
    for folder in ("a/b", "sp ace", "empty", "links"):
        (top / folder).mkdir(parents=True)
    _contents(top)
    _names(os.fsencode(top))
    os.link(top / "a/f", top / "a/b/hard")
    os.link(top / "a/f", top / "sp ace/hard")
    os.symlink("../nowhere", top / "links/dangling")
    os.symlink("a", top / "links/to-folder")
    os.symlink(b"\xff\xfe", os.fsencode(top / "links/not-utf8"))
    os.utime(top / "links/dangling", ns=(0, 981_173_106_789_000_001), follow_symlinks=False)
    os.mkfifo(top / "pipe", 0o640)
    _attributes(top)
    if AS_ROOT:
        _as_root(top)
    os.utime(top / "zero", ns=(1, 1))
    os.utime(top / "empty", ns=(0, -315_619_200 * 10**9))
    (top / "zero").chmod(0)
    (top / "sp ace").chmod(0o500)
    os.utime(top / "a/b", ns=(5, 2_000_000_000_500_000_000))


def _contents(top: Path) -> None:
    (top / "a/f").write_bytes(b"hi\n")
    (top / "a/medium").write_bytes(os.urandom(3_000_000))
    (top / "big").write_bytes(os.urandom(20_000_000))
    (top / "same").write_bytes((top / "big").read_bytes())
    (top / "text").write_bytes(b"the same line over and over\n" * 100_000)
    (top / "zero").touch()
    with open(top / "sparse", "wb") as file:
        file.truncate(30_000_000)
        file.seek(0, os.SEEK_END)
        file.write(b"end")


def _names(top: bytes) -> None:
    odd = [b"bad\xff\x80name", b'new\nline\\q"', "uni-é-ü-日本".encode(), b"-rf", b"a" * 255, b"\x01\x7f",
           "\u2028sep".encode(), b"<&>", b"\\x2e", b" "]  # fmt: skip
    for number, name in enumerate(odd):
        Path(os.fsdecode(os.path.join(top, b"sp ace", name))).write_bytes(b"%d" % number)


def _attributes(top: Path) -> None:
    (top / "a/b").chmod(0o750)
    (top / "empty").chmod(0o1777)
    for name, value in (("user.text", b"value"), ("user.empty", b""), ("user.bytes", bytes(range(256)))):
        os.setxattr(top / "a/f", name, value)
    os.setxattr(top / "a", "user.folder", b"x")
    with contextlib.suppress(FileNotFoundError):
        subprocess.run(["setfacl", "-m", "u:1001:rw,g:1002:r", str(top / "big")], check=True)
        subprocess.run(["setfacl", "-d", "-m", "g:100:rx", str(top / "a/b")], check=True)


def _as_root(top: Path) -> None:
    os.mknod(top / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(top / "disk", stat.S_IFBLK | 0o660, os.makedev(259, 70_000))
    os.chown(top / "a/medium", 1234, 5678)
    os.chown(top / "pipe", 70_000, 5678)
    os.chown(top / "links/dangling", 77, 88, follow_symlinks=False)
    os.chown(top / "a/b", 1234, 5678)
    (top / "a/medium").chmod(0o4755)
    (top / "a/b").chmod(0o2750)
    # cap_net_raw+ep, version 2
    os.setxattr(
        top / "same", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000")
    )
