"""What the parent snapshot has of a directory, and whether that is still what is there.

Invariant: nothing is taken for unchanged whose last change may be younger than the parent's
reading of it, or whose content the repository no longer has.
"""

from __future__ import annotations

import stat

from drctl.errors import CorruptError
from drctl.ports import Directory, Entry
from drctl.repository.archive_job import Job
from drctl.repository.fingerprints import fingerprint_of
from drctl.repository.pack import BlobType
from drctl.repository.tree import TYPE_WORDS, TimeText, go_mode, parse_time_ns, raw_nodes, unquote_name

RawNode = dict[str, object]


class EarlierTrees:
    """Compares directories with the parent snapshot's trees."""

    def __init__(self, job: Job, time_text: TimeText) -> None:
        self._job = job
        self._time_text = time_text

    def fingerprint(self, path: bytes, entries: list[Entry]) -> bytes:
        """What the directory may be recognised by next time; empty where it may not: it is empty,
        holds directories, or changed too lately."""
        settled = self._job.settled_before_ns
        for entry in entries:
            if entry.mode & 0o170000 == stat.S_IFDIR or (entry.ctime_ns or entry.mtime_ns) >= settled:
                return b""
        return fingerprint_of(path, entries) if entries else b""

    def recognise(self, fingerprint: bytes) -> bytes | None:
        """The tree of a directory that looks just as the parent run saw it."""
        tree = self._job.fingerprints.tree_of(fingerprint)
        if tree is None or not self._job.repository.blobs.has(tree, BlobType.TREE):
            return None
        return tree

    def nodes(self, tree: bytes | None) -> dict[bytes, RawNode]:
        """A tree of the parent snapshot, by name. Damaged or absent: empty, which costs reading the
        files again, and heals it."""
        if tree is None:
            return {}
        where = f"tree {tree.hex()[:8]} of the parent snapshot"
        try:
            nodes = raw_nodes(self._job.repository.load_tree(tree), where)
            return {unquote_name(str(node["name"]), where): node for node in nodes}
        except (CorruptError, KeyError):
            return {}

    def is_same_tree(self, directory: Directory, entries: list[Entry], parent: dict[bytes, RawNode]) -> bool:
        """Whether the parent's tree is this directory's, to the byte. Only asked of one that holds no
        directories; most are such, and most do not change from one run to the next."""
        if len(entries) != len(parent) or not parent:
            return False
        for entry in entries:
            before = parent.get(entry.name)
            if before is None or not self._is_same_node(directory, entry, before):
                return False
        return True

    def _is_same_node(self, directory: Directory, entry: Entry, before: RawNode) -> bool:
        user, group = directory.owner_names(entry.uid, entry.gid)
        return (
            self.has(entry, before)
            and before.get("mode", 0) == go_mode(entry.mode)
            and before.get("uid") == entry.uid
            and before.get("gid") == entry.gid
            and before.get("user", "") == user
            and before.get("group", "") == group
            and before.get("device_id", 0) == entry.device
            and before.get("type") != "dir"
        )

    def has(self, entry: Entry, before: RawNode) -> bool:
        """Whether the earlier node is the entry's, unchanged, and its content in the repository."""
        return self._is_unchanged(entry, before) and self._has_content(before)

    def _is_unchanged(self, entry: Entry, before: RawNode) -> bool:
        if (entry.ctime_ns or entry.mtime_ns) >= self._job.trust_before_ns:
            return False
        return (
            before.get("inode", 0) == entry.inode
            and before.get("type") == TYPE_WORDS.get(entry.mode & 0o170000)
            and (before.get("size", 0) == entry.size or before["type"] != "file")
            and self._same_time(before.get("mtime"), entry.mtime_ns)
            and self._same_time(before.get("ctime"), entry.ctime_ns)
        )

    def _same_time(self, text: object, nanoseconds: int) -> bool:
        if text == self._time_text(nanoseconds):
            return True
        try:  # the same instant, written in another time zone
            return isinstance(text, str) and parse_time_ns(text) == nanoseconds
        except CorruptError:
            return False

    def _has_content(self, before: RawNode) -> bool:
        """Whether the repository has all blobs of the parent's node. Where one is gone, reading the
        file again heals it."""
        has = self._job.repository.blobs.has
        content = before.get("content") or ()
        return isinstance(content, list | tuple) and all(
            has(bytes.fromhex(item), BlobType.DATA) for item in content
        )
