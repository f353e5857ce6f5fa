"""Repositories made by hand: any tree, however hostile, in a real repository of real packs."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from drctl.clock import SystemClock
from drctl.domain.secret import Secret
from drctl.repository.crypto import ScryptCost
from drctl.repository.ids import hash_of
from drctl.repository.opening import create_repository
from drctl.repository.pack import BlobType, PackedBlob
from drctl.repository.packer import FinishedPack, Packer
from drctl.repository.repo import FileKind, Repository
from drctl.repository.snapshot import Snapshot
from drctl.storage.local import LocalOptions, LocalStorage

PASSWORD = Secret("handmade")
MTIME = "2026-01-02T03:04:05.123456789Z"
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
GO_DIRECTORY, GO_SYMLINK = 1 << 31, 1 << 27
Json = dict[str, Any]


class Handmade:
    """A repository under construction."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.repository: Repository = create_repository(
            LocalStorage(LocalOptions(str(directory))), PASSWORD, SystemClock(), cost=ScryptCost(n=2, r=1)
        )
        self._packs: list[tuple[bytes, list[PackedBlob]]] = []
        self._packers = {
            kind: Packer(kind, self.repository.sealer(), self.repository.codec(), self._deliver)
            for kind in BlobType
        }

    def blob(self, data: bytes, kind: BlobType = BlobType.DATA) -> str:
        """Store a blob; its id."""
        identifier = hash_of(data)
        self._packers[kind].add(identifier, data)
        return identifier.hex()

    def new_pack(self) -> None:
        """What is stored from now on comes into another pack."""
        self._packers[BlobType.DATA].flush()

    def tree(self, *nodes: Json) -> str:
        """Store a tree of exactly these nodes; its id."""
        return self.blob(json.dumps({"nodes": nodes}).encode(), BlobType.TREE)

    def snapshot(self, tree: str, time: datetime = NOON, **facts: str) -> Snapshot:
        """Finish all packs and store a snapshot of that tree."""
        for packer in self._packers.values():
            packer.flush()
        if self._packs:
            self.repository.save_index(self._packs)
            self._packs = []
        snapshot = Snapshot(time=time, tree=bytes.fromhex(tree), paths=("/",)).with_facts(**facts)
        self.repository.load_index()
        return self.repository.save_snapshot(snapshot)

    def data_packs(self) -> list[Path]:
        """The files of the packs that hold data."""
        return [
            self.directory / FileKind.PACK.key(pack)
            for pack in self.repository.blobs.packs
            if any(blob.type is BlobType.DATA for found, blob in self.repository.blobs if found == pack)
        ]

    def file(self, name: str, *contents: bytes, **changes: object) -> Json:
        """A file's node, its content stored one blob a piece."""
        return node(
            name,
            "file",
            mode=0o644,
            size=sum(map(len, contents)),
            content=[self.blob(content) for content in contents],
            links=1,
            **changes,
        )

    def folder(self, name: str, *nodes: Json, **changes: object) -> Json:
        """A directory's node with what is in it."""
        return node(name, "dir", mode=GO_DIRECTORY | 0o755, subtree=self.tree(*nodes), **changes)

    def _deliver(self, pack: FinishedPack) -> None:
        self.repository.save_pack(pack)
        self._packs.append((pack.id, pack.blobs))


def node(name: str, kind: str, **fields: object) -> Json:
    """Any node; owned by whoever runs the tests unless told otherwise."""
    return {
        "name": name,
        "type": kind,
        "mtime": MTIME,
        "atime": MTIME,
        "ctime": MTIME,
        "uid": os.getuid(),
        "gid": os.getgid(),
        **fields,
    }


def symlink(name: str, target: str) -> Json:
    """A symlink's node."""
    return node(name, "symlink", mode=GO_SYMLINK | 0o777, linktarget=target, links=1)
