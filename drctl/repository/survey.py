"""What the index files say, read once: the blob table, and of each pack what it must look like.

Invariant: one small record a pack and one table entry a blob are kept, whatever the repository's
size; an index file that cannot be read becomes a finding, never a gap that nobody sees.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from drctl.errors import AbsentError, CorruptError, StorageError
from drctl.repository.codec import MAX_BLOB, MAX_TREE
from drctl.repository.crypto import OVERHEAD
from drctl.repository.finding import Finding, damage, damage_from, note
from drctl.repository.index import BlobTable
from drctl.repository.pack import BlobType, PackedBlob, encode_header
from drctl.repository.repo import FileKind, Repository, StoredId

_LENGTH_FIELD = 4
HINT_INDEX = "what the other index files name is still readable; rebuild it with: restic repair index"


@dataclass(frozen=True, slots=True)
class PackListing:
    """What the index says of one pack. `size` is that of the whole file, header included."""

    id: bytes
    size: int
    body: int  # bytes of its blobs
    blobs: int
    kind: BlobType | None  # None: data and trees mixed, as restic did before 0.8
    digest: bytes  # of the header that the pack must have

    @property
    def file(self) -> str:
        """Its storage key."""
        return FileKind.PACK.key(self.id)


@dataclass(slots=True)
class Survey:
    """The index as a whole. `listings[n]` describes `table.packs[n]`."""

    table: BlobTable = field(default_factory=BlobTable)
    listings: list[PackListing] = field(default_factory=list)
    index_files: list[StoredId] = field(default_factory=list)
    duplicates: int = 0  # copies of blobs beyond the first
    findings: list[Finding] = field(default_factory=list)

    def listing(self, pack: bytes) -> PackListing | None:
        """Of a pack by its id."""
        number = self.table.pack_number(pack)
        return None if number is None else self.listings[number]


def survey_index(repository: Repository) -> Survey:
    """Read every index file. UnreachableError when the storage does not answer; all else becomes a
    finding."""
    survey = Survey()
    for stored in sorted(repository.files(FileKind.INDEX), key=lambda stored: stored.id):
        file = FileKind.INDEX.key(stored.id)
        survey.index_files.append(stored)
        try:
            for pack, blobs in repository.index_file(stored.id):
                _add(survey, file, pack, blobs)
        except AbsentError:
            survey.findings.append(damage(file, "vanished while it was read", "is a prune running?"))
        except CorruptError as exc:
            survey.findings.append(damage(file, damage_from(file, exc).what, HINT_INDEX))
        except StorageError as exc:
            survey.findings.append(damage_from(file, exc))
    return survey


def _add(survey: Survey, file: str, pack: bytes, blobs: list[PackedBlob]) -> None:
    blobs.sort(key=lambda blob: blob.offset)
    listing = describe(pack, blobs)
    survey.findings.extend(
        damage(file, f"pack {listing.file}: {problem}", HINT_INDEX) for problem in _problems(blobs)
    )
    known = survey.listing(pack)
    if known is None:
        survey.listings.append(listing)
        survey.duplicates += survey.table.add_pack(pack, blobs)
    elif known == listing:
        survey.findings.append(note(file, f"pack {listing.file} is named by another index file, too"))
    else:
        survey.findings.append(
            damage(file, f"pack {listing.file} is described otherwise by another index file", HINT_INDEX)
        )
        survey.table.add_pack(pack, blobs)  # for the blobs that only this file knows


def describe(pack: bytes, blobs: list[PackedBlob]) -> PackListing:
    """The listing of a pack whose blobs come sorted by offset."""
    header = encode_header(blobs)
    body = sum(blob.length for blob in blobs)
    kinds = {blob.type for blob in blobs}
    return PackListing(
        id=pack,
        size=body + len(header) + OVERHEAD + _LENGTH_FIELD,
        body=body,
        blobs=len(blobs),
        kind=kinds.pop() if len(kinds) == 1 else None,
        digest=header_digest(header),
    )


def header_digest(header: bytes) -> bytes:
    """Tells two headers apart, in the little room a pack's record has."""
    return hashlib.sha256(header).digest()[:16]


def max_plain(kind: BlobType) -> int:
    """Content bytes that no blob of a type exceeds."""
    return MAX_TREE if kind is BlobType.TREE else MAX_BLOB


def _problems(blobs: Iterable[PackedBlob]) -> list[str]:
    """What no pack can look like: overlaps, gaps, absurd lengths."""
    problems, end = [], 0
    for blob in blobs:
        name = f"blob {blob.id.hex()[:8]}"
        if blob.length < OVERHEAD:
            problems.append(f"{name} has {blob.length} bytes, less than an empty blob")
        if blob.plain_length > max_plain(blob.type):
            problems.append(f"{name} claims {blob.plain_length} bytes, more than any can have")
        if blob.offset < end:
            problems.append(f"{name} at {blob.offset} overlaps the one before it")
        elif blob.offset > end:
            problems.append(f"no blob is listed from {end} to {blob.offset}")
        end = max(end, blob.offset + blob.length)
    return problems
