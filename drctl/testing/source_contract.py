"""The contracts of `ports.TreeSource` and `ports.StreamSource` as tests: the same for every kind.

Subclass one in a test module and give it the source and what it must show:

    class TestMySource(TreeSourceContract):
        @pytest.fixture
        def source(self): ...
        @pytest.fixture
        def expected(self): return {b"/where/file": b"content"}

Invariant: it uses only what the ports promise.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from drctl.errors import SourceError
from drctl.ports import Directory, Entry, Reader, Stream, StreamSource, TreeSource


def read_all(opened: Reader | Stream, size: int = 65_536) -> bytes:
    """Everything up to the end, through a buffer of `size` bytes."""
    buffer, parts = memoryview(bytearray(size)), []
    while count := opened.readinto(buffer):
        parts.append(bytes(buffer[:count]))
    return b"".join(parts)


def walk(source: TreeSource) -> Iterator[tuple[bytes, Entry, bytes | None]]:
    """Path, entry and content (of regular files) of all that the source shows, roots included."""
    for root in source.roots:
        with source.open_root(root) as directory:
            (entry,) = directory.entries
            yield root, entry, _content(directory, entry)
            if stat.S_ISDIR(entry.mode):
                yield from _walk_below(source, root)


def _walk_below(source: TreeSource, path: bytes) -> Iterator[tuple[bytes, Entry, bytes | None]]:
    with source.open_directory(path) as directory:
        assert not directory.unreadable
        for entry in directory.entries:
            below = os.path.join(path, entry.name)
            yield below, entry, _content(directory, entry)
            if stat.S_ISDIR(entry.mode):
                yield from _walk_below(source, below)


def _content(directory: Directory, entry: Entry) -> bytes | None:
    if not stat.S_ISREG(entry.mode):
        return None
    reader = directory.open(entry)
    try:
        content = read_all(reader)
        assert not reader.changed()
        return content
    finally:
        reader.close()


def files_of(source: TreeSource) -> dict[bytes, bytes]:
    """Content by path."""
    return {path: content for path, _, content in walk(source) if content is not None}


class TreeSourceContract:
    """All that a tree source must do. `expected` maps every regular file's path to its content."""

    @pytest.fixture
    def source(self) -> TreeSource:
        raise NotImplementedError("override the fixture `source`")

    @pytest.fixture
    def expected(self) -> dict[bytes, bytes]:
        raise NotImplementedError("override the fixture `expected`")

    def test_every_file_is_shown_with_its_content(
        self, source: TreeSource, expected: dict[bytes, bytes]
    ) -> None:
        assert files_of(source) == expected

    def test_sizes_are_those_of_the_content(self, source: TreeSource) -> None:
        for _, entry, content in walk(source):
            assert content is None or entry.size == len(content)

    def test_roots_are_absolute_and_apart(self, source: TreeSource) -> None:
        assert source.roots
        for root in source.roots:
            assert root.startswith(b"/")
            assert os.path.normpath(root) == root
            others = [other for other in source.roots if other != root]
            assert not any(other.startswith(root.rstrip(b"/") + b"/") for other in others)

    def test_the_chain_above_a_root_are_directories(self, source: TreeSource) -> None:
        for root in source.roots:
            above = os.path.dirname(root)
            while above != b"/":
                with source.open_root(above) as directory:
                    (entry,) = directory.entries
                    assert entry.name == os.path.basename(above)
                    assert stat.S_ISDIR(entry.mode)
                    assert list(directory.extended_attributes(entry)) is not None
                above = os.path.dirname(above)

    def test_entries_are_sorted_by_name_bytes_and_the_same_each_time(self, source: TreeSource) -> None:
        first = [(path, entry) for path, entry, _ in walk(source)]
        assert first == [(path, entry) for path, entry, _ in walk(source)]
        for root in source.roots:
            with source.open_root(root) as holder:
                if not stat.S_ISDIR(holder.entries[0].mode):
                    continue
            with source.open_directory(root) as directory:
                names = [entry.name for entry in directory.entries]
                assert names == sorted(set(names))
                assert all(name and b"/" not in name for name in names)

    def test_a_file_reads_the_same_through_any_buffer_and_over_its_holes(self, source: TreeSource) -> None:
        for root in source.roots:
            for path, entry, content in list(walk(source)):
                if content is None or root not in (path, os.path.dirname(path)):
                    continue
                holder = source.open_root(path) if path == root else source.open_directory(root)
                with holder as directory:
                    reader = directory.open(entry)
                    assert read_all(reader, 7777) == content
                    reader.close()
                    assert _read_over_holes(directory.open(entry), 4096) == content

    def test_closing_a_reader_twice_is_no_error(self, source: TreeSource) -> None:
        root = source.roots[0]
        with source.open_root(root) as directory:
            if stat.S_ISREG(directory.entries[0].mode):
                reader = directory.open(directory.entries[0])
                reader.close()
                reader.close()

    def test_what_is_not_there_is_an_os_error(self, source: TreeSource) -> None:
        with pytest.raises(OSError):
            source.open_directory(os.path.join(source.roots[0], b"no-such-directory")).close()

    def test_several_threads_read_at_once(self, source: TreeSource, expected: dict[bytes, bytes]) -> None:
        with ThreadPoolExecutor(4) as pool:
            for found in pool.map(lambda _: files_of(source), range(8)):
                assert found == expected

    def test_a_copy_in_another_process_shows_the_same(
        self, source: TreeSource, expected: dict[bytes, bytes]
    ) -> None:
        assert files_of(source) == expected
        for method in ("fork", "spawn"):
            with multiprocessing.get_context(method).Pool(2) as pool:
                assert pool.map(files_of, [source, source]) == [expected, expected]

    def test_a_closed_source_can_be_used_again(
        self, source: TreeSource, expected: dict[bytes, bytes]
    ) -> None:
        assert files_of(source) == expected
        source.close()
        assert files_of(source) == expected

    def test_no_descriptor_is_left_open(self, source: TreeSource) -> None:
        files_of(source)
        before = len(os.listdir("/proc/self/fd"))
        files_of(source)
        assert len(os.listdir("/proc/self/fd")) == before

    def test_owners_have_names_or_none(self, source: TreeSource) -> None:
        with source.open_root(source.roots[0]) as directory:
            for text in directory.owner_names(directory.entries[0].uid, 4_123_456_789):
                assert isinstance(text, str)


def _read_over_holes(reader: Reader, size: int) -> bytes:
    buffer, content = memoryview(bytearray(size)), bytearray()
    while True:
        if hole := reader.hole(len(content)):
            reader.skip(hole)
            content += bytes(hole)
        count = reader.readinto(buffer)
        if not count:
            reader.close()
            return bytes(content)
        content += buffer[:count]


class StreamSourceContract:
    """All that a stream source must do. `broken` is one that ends before it is complete, `empty` one
    that is complete and says nothing."""

    @pytest.fixture
    def source(self) -> StreamSource:
        raise NotImplementedError("override the fixture `source`")

    @pytest.fixture
    def broken(self) -> StreamSource:
        raise NotImplementedError("override the fixture `broken`")

    @pytest.fixture
    def empty(self) -> StreamSource:
        raise NotImplementedError("override the fixture `empty`")

    @pytest.fixture
    def expected(self) -> bytes:
        raise NotImplementedError("override the fixture `expected`")

    def test_the_path_is_absolute_and_names_a_file(self, source: StreamSource) -> None:
        assert source.path.startswith(b"/")
        assert os.path.normpath(source.path) == source.path != b"/"

    @pytest.mark.parametrize("size", [1000, 1 << 20])
    def test_the_stream_is_whole_through_any_buffer(
        self, source: StreamSource, expected: bytes, size: int
    ) -> None:
        stream = source.open()
        assert read_all(stream, size) == expected
        assert stream.readinto(memoryview(bytearray(1))) == 0
        stream.finish()

    def test_a_source_opens_anew_each_time_and_in_a_copy(self, source: StreamSource, expected: bytes) -> None:
        for one in (source, source, pickle.loads(pickle.dumps(source))):  # noqa: S301 - our own bytes
            stream = one.open()
            assert read_all(stream) == expected
            stream.finish()

    @pytest.mark.parametrize("kind", ["broken", "empty"])
    def test_an_incomplete_stream_is_an_error_at_the_end(
        self, kind: str, request: pytest.FixtureRequest
    ) -> None:
        stream: Stream = request.getfixturevalue(kind).open()
        with pytest.raises(SourceError):
            read_all(stream)
            stream.finish()
        stream.abort()

    def test_aborting_is_possible_at_any_time_and_twice(self, source: StreamSource) -> None:
        stream = source.open()
        stream.abort()
        stream.abort()
        stream = source.open()
        stream.readinto(memoryview(bytearray(10)))
        stream.abort()
        stream.abort()
