"""Backing a stream up: one file whose content can be read once only.

Invariant: nothing of a stream that did not end well becomes a tree.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from datetime import datetime

from drctl.domain.events import Progressed
from drctl.ports import Buffer, Entry, Stream, StreamSource
from drctl.repository.archive import Archived, TreeStore, Watch
from drctl.repository.archive_job import Counts, LocalTimeText
from drctl.repository.chunk_store import ChunkStore
from drctl.repository.chunker import Cutter, split
from drctl.repository.crew import share_arena
from drctl.repository.index_writer import IndexWriter
from drctl.repository.repo import Repository
from drctl.repository.seen import SeenBlobs
from drctl.repository.tree import join_tree, render_node

_READ = 2**20
_OWNER = ("", "")


def archive_stream(
    repository: Repository,
    source: StreamSource,
    make_cutter: Callable[[], Cutter],
    started: datetime,
    watch: Watch,
) -> Archived:
    """Store what the source's stream says, as the file `source.path`. SourceError when the stream
    was empty or not complete."""
    share_arena()
    watch.forked()
    counts = Counts(files_new=1)
    seen = SeenBlobs()
    index = IndexWriter(repository, watch.clock, watch.check)
    chunks = ChunkStore(repository, seen)
    trees = TreeStore(repository, seen, counts)
    try:
        content, counts.bytes = _read(source, make_cutter, chunks, watch)
        tree = _store_chain(source.path, content, counts.bytes, started, trees)
        stored, packs = chunks.finish()
        counts.add(stored)
        index.add(packs)
        index.add(trees.finish())
        index.finish(counts.data_blobs + counts.tree_blobs)
    finally:
        chunks.abandon()
        trees.abandon()
    return Archived(tree, counts, ())


def _read(
    source: StreamSource, make_cutter: Callable[[], Cutter], chunks: ChunkStore, watch: Watch
) -> tuple[list[str], int]:
    stream = source.open()
    try:
        content, size = chunks.store(split(make_cutter(), _parts(stream, watch)))
    except BaseException:
        stream.abort()
        raise
    stream.finish()
    return content, size


def _parts(stream: Stream, watch: Watch) -> Iterator[Buffer]:
    buffer = bytearray(_READ)
    done = 0
    with memoryview(buffer) as view:
        while count := stream.readinto(view):
            done += count
            yield view[:count]
            watch.check()
            watch.emit(Progressed(0, done))


def _store_chain(path: bytes, content: list[str], size: int, started: datetime, trees: TreeStore) -> bytes:
    """The tree of `/` that leads down to the stream's file; its directories are made up."""
    *above, name = path.strip(b"/").split(b"/")
    render_time = LocalTimeText()
    node = render_node(
        _entry(name, stat.S_IFREG | 0o600, started), render_time, _OWNER, content=content, size=size
    )
    tree = trees.store(join_tree([node]))
    for directory in reversed(above):
        entry = _entry(directory, stat.S_IFDIR | 0o700, started)
        tree = trees.store(join_tree([render_node(entry, render_time, _OWNER, subtree=tree.hex())]))
    return tree


def _entry(name: bytes, mode: int, started: datetime) -> Entry:
    stamp = int(started.timestamp()) * 10**9
    return Entry(name, mode, 0, stamp, stamp, 0, 0, 0, 0, 0)
