"""restic's own cutter, so that large files dedup across both tools: the extra `restic-chunker`.

A chunk ends where the Rabin fingerprint of the last 64 bytes, modulo the repository's polynomial of
degree 53, has its low 20 bits clear: at 512 KiB at the earliest, at 8 MiB at the latest (facts:
restic's chunker package; tests/format compares with what stock restic stored).
Invariant: without the extra there is an error, never another cutter; what is compiled is kept only
in a folder that nobody else can write to, because loading it runs it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

from drctl.errors import CorruptError, UsageError
from drctl.repository.chunker import MAX_CHUNK, MIN_CHUNK
from drctl.repository.polynomial import DEGREE, is_irreducible

_WINDOW = 64
_MASK = 2**20 - 1
_TOP = DEGREE - 8
_STRETCH = 2**13
_Scan = Callable[[Any, Any, Any, Any], int]


class RabinCutter:
    """Cuts as restic does in a repository of this polynomial. May be used by several threads."""

    def __init__(self, polynomial: int) -> None:
        if polynomial.bit_length() - 1 != DEGREE or not is_irreducible(polynomial):
            raise CorruptError(
                f"config: chunker polynomial {polynomial:x} is not irreducible of degree {DEGREE}"
            )
        self._scan = _compiled()
        self._out, self._mod = _tables(polynomial)

    def cut(self, window: memoryview, last: bool) -> Iterator[int]:
        """See `Cutter.cut`."""
        import numpy

        data = numpy.frombuffer(window.toreadonly(), numpy.uint8)
        lengths = numpy.empty(len(data) // MIN_CHUNK + 1, numpy.int64)
        found = lengths[: self._scan(data, self._out, self._mod, lengths)].tolist()
        del data  # the window cannot be resized while it is looked at
        rest = len(window) - sum(found)
        return iter([*found, rest] if last and rest else found)


@cache
def _tables(polynomial: int) -> tuple[Any, Any]:
    """What sliding a byte out takes away, and what reduces the eight bits above the degree."""
    import numpy

    def shifted(byte: int, bits: int) -> int:
        for _ in range(bits):
            byte <<= 1
            if byte >> DEGREE & 1:
                byte ^= polynomial
        return byte

    out = [shifted(byte, 8 * _WINDOW) for byte in range(256)]
    mod = [shifted(byte, DEGREE) | byte << DEGREE for byte in range(256)]
    return numpy.array(out, numpy.uint64), numpy.array(mod, numpy.uint64)


def _scan(data: Any, out: Any, mod: Any, lengths: Any) -> int:
    """Fill `lengths` with the chunks that surely end in `data`; how many there are. Compiled; in one
    piece, and so that every fingerprint stays an unsigned 64-bit number."""
    start = count = 0
    while len(data) - start >= MIN_CHUNK:
        limit = min(len(data), start + MAX_CHUNK)
        end, at = -1, start + MIN_CHUNK
        while end < 0 and at <= limit:
            # two stretches at once: one fingerprint alone waits for its own table look-ups
            stretch = min(_STRETCH, (limit - at + 2) // 2)
            other = min(at + stretch, limit + 1 - stretch)
            here = there = mod[0]  # 0
            for back in range(-_WINDOW, 0):
                here = here << 8 ^ mod[here >> _TOP] ^ data[at + back]
                there = there << 8 ^ mod[there >> _TOP] ^ data[other + back]
            second = other if there & _MASK == 0 else -1
            if here & _MASK == 0:
                end = at
                break
            for ahead in range(stretch - 1):
                new, old = at + ahead, at + ahead - _WINDOW
                here = here << 8 ^ mod[here >> _TOP] ^ out[data[old]] ^ data[new]
                new, old = other + ahead, other + ahead - _WINDOW
                there = there << 8 ^ mod[there >> _TOP] ^ out[data[old]] ^ data[new]
                if there & _MASK == 0 and second < 0:
                    second = other + ahead + 1
                if here & _MASK == 0:
                    end = at + ahead + 1
                    break
            if end < 0:
                end = second
            at = other + stretch
        if end < 0 and limit < start + MAX_CHUNK:
            break
        if end < 0:
            end = limit
        lengths[count] = end - start
        count += 1
        start = end
    return count


@cache
def _compiled() -> _Scan:
    """The scan as machine code; UsageError without the extra. Takes a second the first time."""
    try:
        import numba
    except ImportError as exc:
        raise UsageError(
            "chunker: restic needs an extra that is not installed",
            hint="pip install 'drctl[restic-chunker]', or choose chunker: fastcdc",
        ) from exc
    data = numba.types.Array(numba.types.uint8, 1, "C", readonly=True)
    table, lengths = numba.types.uint64[::1], numba.types.int64[::1]
    compile_ = partial(numba.njit, numba.types.int64(data, table, table, lengths), nogil=True)
    folder = _cache_folder()
    if folder is not None:
        config: Any = numba.config
        config.CACHE_DIR = folder
        try:
            kept: _Scan = compile_(cache=True)(_scan)
            return kept
        except (OSError, RuntimeError):
            pass  # a full disk or the like: compile for this run alone
    scan: _Scan = compile_()(_scan)
    return scan


def _cache_folder() -> str | None:
    """Where compiled code is kept; None where it could not be trusted or written."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = os.path.join(home, "drctl", "numba")
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        for path in (home, os.path.dirname(folder), folder):
            status = os.stat(path)
            # with sudo the home may be somebody else's, who could plant code for root
            if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                return None
        return folder if os.access(folder, os.W_OK | os.X_OK) else None
    except OSError:
        return None
