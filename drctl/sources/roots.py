"""The paths a plan names, as roots of trees.

Invariant: roots are absolute, normalised and disjoint; each named path is a root or lies in one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable


def check_absolute(path: str) -> None:
    """ValueError unless the path is absolute and free of `..` (which means something else where a
    symlink stands before it) and NUL."""
    if not path.startswith("/"):
        raise ValueError(f"not an absolute path: {path!r}")
    if ".." in path.split("/"):
        raise ValueError(f"a path must not hold '..': {path!r}")
    if "\0" in path:
        raise ValueError(f"a path must not hold a NUL byte: {path!r}")


def normalise_roots(paths: Iterable[str]) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """All named paths, and of these the roots: those inside no other. Both sorted."""
    named = sorted({b"/" + os.path.normpath(os.fsencode(path)).lstrip(b"/") for path in paths})
    roots = [path for path in named if not any(path != other and contains(other, path) for other in named)]
    return tuple(named), tuple(roots)


def contains(root: bytes, path: bytes) -> bool:
    """Whether `path` is `root` or below it."""
    return path == root or path.startswith(root if root == b"/" else root + b"/")


def split(path: bytes) -> tuple[bytes, bytes]:
    """The directory that holds `path`, and its name there; ("/", ".") for "/"."""
    parent, name = os.path.split(path)
    return parent, name or b"."
