"""Whether two trees are the same, content and metadata, told entry by entry."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterator

_CHUNK = 1 << 20


def differences(
    one: str | bytes | os.PathLike[str],
    other: str | bytes | os.PathLike[str],
    *,
    owners: bool = True,
    top: bool = False,
    sparse: bool = False,
    directory_times: bool = True,
) -> list[str]:
    """What differs between two directories, one line each; empty when nothing does.

    Compared are: names, type, permission bits with setuid, setgid and sticky, owner and group
    (`owners`), mtime in ns, size, content, link targets, device numbers, extended attributes (ACLs
    are among them) and which names are hard links of one file. `top`: the two directories'
    own metadata too. `sparse`: `other` may not occupy more blocks than `one`."""
    first, second = os.fsencode(one), os.fsencode(other)
    here, there = dict(_walk(first)), dict(_walk(second))
    found = [f"{_shown(path)}: only in {_shown(first)}" for path in sorted(here.keys() - there.keys())]
    found += [f"{_shown(path)}: only in {_shown(second)}" for path in sorted(there.keys() - here.keys())]
    for path in sorted(here.keys() & there.keys()):
        if path == b"" and not top:
            continue
        is_directory = stat.S_ISDIR(here[path].st_mode)
        ignored: set[str] = set() if owners else {"owner"}
        if is_directory and not directory_times:
            ignored.add("mtime")
        for words in _entry(first, second, path, here[path], there[path], ignored, sparse):
            found.append(f"{_shown(path)}: {words}")
    if (groups := _link_groups(here)) != (others := _link_groups(there)):
        for group in groups ^ others:
            found.append(f"hard links differ: {', '.join(map(_shown, sorted(group)))}")
    return found


def _walk(root: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    yield b"", os.lstat(root)
    stack = [b""]
    while stack:
        directory = stack.pop()
        with os.scandir(os.path.join(root, directory)) as entries:
            for entry in entries:
                path = os.path.join(directory, entry.name)
                status = entry.stat(follow_symlinks=False)
                yield path, status
                if stat.S_ISDIR(status.st_mode):
                    stack.append(path)


_FACTS: dict[str, Callable[[os.stat_result], object]] = {
    "type": lambda s: stat.S_IFMT(s.st_mode),
    "mode": lambda s: oct(stat.S_IMODE(s.st_mode)),
    "mtime": lambda s: s.st_mtime_ns,
    "size": lambda s: 0 if stat.S_ISDIR(s.st_mode) else s.st_size,
    "device": lambda s: s.st_rdev,
    "owner": lambda s: (s.st_uid, s.st_gid),
}


def _entry(
    first: bytes,
    second: bytes,
    path: bytes,
    here: os.stat_result,
    there: os.stat_result,
    ignored: set[str],
    sparse: bool,
) -> Iterator[str]:
    for name, fact in _FACTS.items():
        if name not in ignored and fact(here) != fact(there):
            yield f"{name}: {fact(here)} and {fact(there)}"
    one, other = os.path.join(first, path), os.path.join(second, path)
    if stat.S_IFMT(here.st_mode) != stat.S_IFMT(there.st_mode):
        return
    if stat.S_ISLNK(here.st_mode) and os.readlink(one) != os.readlink(other):
        yield f"link target: {os.readlink(one)!r} and {os.readlink(other)!r}"
    if (mine := _attributes(one)) != (theirs := _attributes(other)):
        yield f"extended attributes: {mine} and {theirs}"
    if stat.S_ISREG(here.st_mode):
        if here.st_size == there.st_size and not _same_content(one, other):
            yield "content"
        if sparse and there.st_blocks > here.st_blocks + 16:
            yield f"occupies {there.st_blocks} blocks rather than {here.st_blocks}"


def _attributes(path: bytes) -> dict[str, bytes]:
    return {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in os.listxattr(path, follow_symlinks=False)
    }


def _same_content(one: bytes, other: bytes) -> bool:
    with open(one, "rb") as first, open(other, "rb") as second:
        while True:
            mine, theirs = first.read(_CHUNK), second.read(_CHUNK)
            if mine != theirs:
                return False
            if not mine:
                return True


def _link_groups(entries: dict[bytes, os.stat_result]) -> set[frozenset[bytes]]:
    groups: dict[tuple[int, int], list[bytes]] = defaultdict(list)
    for path, status in entries.items():
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            groups[status.st_dev, status.st_ino].append(path)
    return {frozenset(paths) for paths in groups.values() if len(paths) > 1}


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace") or "."
