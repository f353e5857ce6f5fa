"""A directory with everything that is awkward to write down, for goldens against stock restic."""

from __future__ import annotations

import os
import socket
import stat

NAMES = (
    b"plain.txt",
    b" leading and trailing ",
    b"tab\tnewline\nreturn\rbell\a\b\f\v\x01\x1f\x7f",
    b"<&>'\"\\ \\n \\x41 \\\\",
    "line\u2028paragraph\u2029end".encode(),
    "emoji \U0001f9e8\U0001f469\u200d\U0001f4bb\ufe0f".encode(),
    "combining e\u0301 \u00e9 \u0300".encode(),
    "unassigned \u0378 \ue000 \U000e0fff \ufffe \ufeff \u00ad \u00a0 \u3000 \u0085".encode(),
    b"not utf-8 \xff\xfe\x80 \xc3( \xe2\x82 \xed\xa0\x80 \xf8\x88\x80\x80\x80 \xc0\xaf",
    b"...",
    b"-rf",
    b"$(reboot);`id`|%s{}[]*?!#~",
    "\u202etxt.exe \u05d0\u05d1 \u0627".encode(),
    b"x" * 255,
)
TARGETS = (
    b"plain.txt",
    b"../../etc/passwd",
    b'/absolute <&> "quoted" \\ back',
    "control \x01\x1f\x7f\t\n\u2028 \U0001f9e8 \u0378".encode(),
    b"t" * 1000,
)
# restic before 0.17 lost bytes that are not UTF-8, and Go before 1.22 wrote \b and \f as \u0008 and \u000c
NEWER_TARGETS = (
    b"not utf-8 \xff\xfe \xc3( \xe2\x82\xff \xed\xa0\x80",
    b"control \x08\x0c",
)
TIMES_NS = (
    0,
    1,
    -1,
    -(10**9),
    -86_400 * 365 * 50 * 10**9 + 123_456_789,  # 1920
    1_782_864_000_000_000_000,
    1_782_864_000_100_000_000,
    1_793_491_199_999_999_999,  # an hour that daylight saving doubles, in Europe
    1_774_746_000_000_000_001,
    (2**31 + 5) * 10**9 + 120,
    4_102_444_800 * 10**9 + 7_000,
)
MODES = (0o000, 0o644, 0o777, 0o4755, 0o2755, 0o1777, 0o7777)


def make_nasty_tree(base: bytes, *, old_program: bool = False) -> None:
    """Fill the directory `base`. What needs root (devices, owners) is left out without it, and for
    an old restic the link targets it cannot keep."""
    for part in (_names, _links, _times, _modes, _attributes, _sizes, _special):
        directory = os.path.join(base, part.__name__.encode())
        os.makedirs(directory)
        part(directory)
    os.makedirs(os.path.join(base, b"empty directory"))
    for number, target in enumerate(() if old_program else NEWER_TARGETS):
        os.symlink(target, os.path.join(base, b"newer link%d" % number))


def _write(path: bytes, content: bytes = b"") -> None:
    with open(path, "wb") as file:
        file.write(content)


def _names(base: bytes) -> None:
    for number, name in enumerate(NAMES):
        _write(os.path.join(base, name), b"%d" % number)
        if len(name) < 200:
            os.makedirs(os.path.join(base, b"dir " + name))


def _links(base: bytes) -> None:
    for number, target in enumerate(TARGETS):
        os.symlink(target, os.path.join(base, b"link%d" % number))
    _write(os.path.join(base, b"hard"), b"hard")
    os.link(os.path.join(base, b"hard"), os.path.join(base, b"hard too"))
    os.link(
        os.path.join(base, b"link0"), os.path.join(base, b"hard link to a symlink"), follow_symlinks=False
    )


def _times(base: bytes) -> None:
    for number, moment in enumerate(TIMES_NS):
        path = os.path.join(base, b"time%d" % number)
        _write(path)
        os.utime(path, ns=(moment, moment))


def _modes(base: bytes) -> None:
    for mode in MODES:
        for make in (_write, os.mkdir):
            path = os.path.join(base, b"%s %o" % (make.__name__.encode(), mode))
            make(path)
            if os.geteuid() == 0:
                os.chown(path, 4_000_000_000, 12_345)
            os.chmod(path, mode)


def _attributes(base: bytes) -> None:
    path = os.path.join(base, b"file")
    _write(path)
    for name, value in (("user.zz", b"last\x00\xff"), ("user.empty", b""), ("user.<&>\u00fc", b"<&>")):
        os.setxattr(path, name, value)
    os.setxattr(path, b"user.not utf-8 \xff\xfe", b"x")
    os.setxattr(base, "user.directory", bytes(range(256)))


def _sizes(base: bytes) -> None:
    _write(os.path.join(base, b"empty"))
    _write(os.path.join(base, b"half a MiB"), bytes(2**19))
    with open(os.path.join(base, b"sparse"), "wb") as file:
        file.truncate(3 * 2**20)
        file.seek(2**20)
        file.write(b"island")


def _special(base: bytes) -> None:
    os.mkfifo(os.path.join(base, b"fifo"), 0o640)
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
        try:
            listener.bind(f"/proc/self/fd/{here}/socket")
        finally:
            os.close(here)
    if os.geteuid() == 0:
        os.mknod(os.path.join(base, b"block"), 0o660 | stat.S_IFBLK, os.makedev(259, 70_000))
        os.mknod(os.path.join(base, b"char"), 0o666 | stat.S_IFCHR, os.makedev(1, 3))
