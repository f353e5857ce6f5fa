"""Cutting a stream into chunks by content: FastCDC here, restic's own Rabin cutter in `rabin`.

Files up to 512 KiB are one chunk under either content cutter, as in restic, so that they dedup
across both tools. Invariant: the chunks of a stream, joined, are the stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from drctl.ports import Buffer

KIB = 2**10
MIN_CHUNK = 512 * KIB
MAX_CHUNK = 8 * 2**20
_AVERAGE = 1024 * KIB


class Cutter(Protocol):
    """Finds where the next chunk ends."""

    def cut(self, window: memoryview, last: bool) -> Iterator[int]:
        """Lengths of successive chunks from the front of `window`. With `last` they cover it all;
        otherwise what is left over begins the next window."""
        ...


class FastCdcCutter:
    """FastCDC 2020: min 512 KiB, about 1.5 MiB on average, max 8 MiB."""

    def __init__(self) -> None:
        from pyfastcdc import FastCDC  # 20 ms that an unchanged rescan never needs

        self._fastcdc = FastCDC(_AVERAGE, min_size=MIN_CHUNK, max_size=MAX_CHUNK)

    def cut(self, window: memoryview, last: bool) -> Iterator[int]:
        """See `Cutter.cut`."""
        done = 0
        for chunk in self._fastcdc.cut_buf(window):
            # a boundary at the window's end is the window's, not the content's
            if not last and done + chunk.length == len(window):
                return
            done += chunk.length
            yield chunk.length


def split(cutter: Cutter, parts: Iterator[Buffer]) -> Iterator[bytes]:
    """Chunks of a stream given in parts; at most one window of MAX_CHUNK plus a part is held."""
    window = bytearray()
    for part in parts:
        window += part
        if len(window) < MAX_CHUNK:
            continue
        done = 0
        with memoryview(window) as view:
            for length in cutter.cut(view, last=False):
                yield bytes(view[done : done + length])
                done += length
        del window[:done]
    with memoryview(window) as view:
        done = 0
        for length in cutter.cut(view, last=True):
            yield bytes(view[done : done + length])
            done += length
