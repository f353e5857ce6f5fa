"""What is needed of each pack: the snapshots' blobs, and which copy of a blob is the one to keep.

Invariant: every needed blob has exactly one keeper, a pack that holds it; about six bytes a blob
on top of the table. Anything unreadable on the way is an error: whoever deletes by this must not
take an error for an absence.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from drctl.errors import CorruptError
from drctl.repository.crew import Crew
from drctl.repository.finding import Finding, Severity
from drctl.repository.pack import PackedBlob
from drctl.repository.prune import HINT_CHECK, PackFacts, PruneFacts
from drctl.repository.reach import Marks, mark_reachable, start_walk
from drctl.repository.repo import FileKind, Repository, StoredId
from drctl.repository.survey import PackListing, Survey, survey_index


@dataclass(frozen=True, slots=True)
class Usage:
    """What planning and repacking share."""

    survey: Survey
    marks: Marks
    keepers: array[int]  # of each position: the number of the pack whose copy stays
    facts: PruneFacts
    snapshots: frozenset[bytes]

    def wanted(self, listing: PackListing, blobs: list[PackedBlob]) -> list[PackedBlob]:
        """Of a pack's blobs, those that this pack must keep, each once."""
        table = self.survey.table
        number = table.pack_number(listing.id)
        wanted: dict[int, PackedBlob] = {}
        for blob in blobs:
            position = table.position(blob.id, blob.type)
            if position >= 0 and self.marks[position] and self.keepers[position] == number:
                wanted.setdefault(position, blob)
        return list(wanted.values())


def survey_usage(
    repository: Repository,
    locked_at: datetime,
    progress: Callable[[int], None] = lambda trees: None,
    forked: Callable[[], None] = lambda: None,
) -> Usage:
    """Read snapshots, index, trees and the list of packs. CorruptError for the first damage met.
    `forked` is called once the processes that read the trees are forked."""
    snapshots = repository.snapshots()
    survey = survey_index(repository)
    _refuse(survey.findings)
    stored = {file.id: file for file in _stored_packs(repository)}
    roots = [(FileKind.SNAPSHOT.key(snapshot.id or b""), snapshot.tree) for snapshot in snapshots]
    walk = start_walk(repository, survey.table)
    with Crew(walk, forked=forked) as crew:
        _refuse(mark_reachable(crew, walk, roots, progress))
    marks = walk.marks
    keepers, used = _choose_keepers(repository, survey, marks, stored)
    facts = PruneFacts(
        packs=tuple(
            _facts(listing, stored.get(listing.id), *used[number])
            for number, listing in enumerate(survey.listings)
        ),
        unreferenced=tuple(file for file in stored.values() if survey.listing(file.id) is None),
        locked_at=locked_at,
        snapshots=len(snapshots),
    )
    return Usage(survey, marks, keepers, facts, frozenset(snapshot.id or b"" for snapshot in snapshots))


def _refuse(findings: list[Finding]) -> None:
    for finding in findings:
        if finding.severity is Severity.ERROR:
            raise CorruptError(f"{finding.file}: {finding.what}", hint=HINT_CHECK)


def _stored_packs(repository: Repository) -> Iterator[StoredId]:
    """The packs that lie where packs lie; anything else is not ours to count or delete."""
    for file in repository.storage.list("data/"):
        name = file.key.rsplit("/", 1)[-1]
        if len(name) == 64 and set(name) <= set("0123456789abcdef"):
            identifier = bytes.fromhex(name)
            if file.key == FileKind.PACK.key(identifier):
                yield StoredId(identifier, file.size, file.modified)


def _facts(listing: PackListing, stored: StoredId | None, blobs: int, used_bytes: int) -> PackFacts:
    return PackFacts(
        id=listing.id,
        kind=listing.kind,
        size=listing.size,
        stored_size=stored.size if stored else None,
        blobs=listing.blobs,
        used_blobs=blobs,
        used_bytes=used_bytes,
        body_bytes=listing.body,
    )


def _choose_keepers(
    repository: Repository, survey: Survey, marks: Marks, stored: dict[bytes, StoredId]
) -> tuple[array[int], list[tuple[int, int]]]:
    """Each blob's keeper, and per pack how many blobs and bytes it keeps."""
    table = survey.table
    keepers = array("I", map(table.pack_number_at, range(len(table))))
    if survey.duplicates:
        rank = _ranks(survey, marks, stored)
        for number, blobs in _listed_packs(repository, survey):
            for blob in blobs:
                position = table.position(blob.id, blob.type)
                if rank[number] < rank[keepers[position]]:
                    keepers[position] = number
    used = [(0, 0)] * len(survey.listings)
    for number, length in _kept_lengths(repository, survey, marks, keepers):
        blobs_before, bytes_before = used[number]
        used[number] = (blobs_before + 1, bytes_before + length)
    return keepers, used


def _ranks(survey: Survey, marks: Marks, stored: dict[bytes, StoredId]) -> list[tuple[bool, int, bytes]]:
    """Where a copy is best kept, lowest first: in a pack that is whole, and has the least waste, so
    that what an interrupted prune wrote is kept and what it copied from goes."""
    unused = [0] * len(survey.listings)
    for position in range(len(survey.table)):
        if not marks[position]:
            pack, blob = survey.table.at(position)
            unused[survey.table.pack_number(pack) or 0] += blob.length
    ranks = []
    for number, listing in enumerate(survey.listings):
        file = stored.get(listing.id)
        ranks.append((file is None or file.size != listing.size, unused[number], listing.id))
    return ranks


def _kept_lengths(
    repository: Repository, survey: Survey, marks: Marks, keepers: array[int]
) -> Iterator[tuple[int, int]]:
    """Pack number and stored length of each needed blob's kept copy."""
    table = survey.table
    if not survey.duplicates:
        for position, number in enumerate(keepers):
            if marks[position]:
                yield number, table.at(position)[1].length
        return
    for number, blobs in _listed_packs(repository, survey):
        seen = set()
        for blob in blobs:
            position = table.position(blob.id, blob.type)
            if marks[position] and keepers[position] == number and position not in seen:
                seen.add(position)
                yield number, blob.length


def _listed_packs(repository: Repository, survey: Survey) -> Iterator[tuple[int, list[PackedBlob]]]:
    """Every pack's blobs once more, each pack once. Copies beyond the first are in no table."""
    done = bytearray(len(survey.listings))
    for stored in survey.index_files:
        for pack, blobs in repository.index_file(stored.id):
            number = survey.table.pack_number(pack)
            if number is None:
                raise CorruptError(
                    f"{FileKind.INDEX.key(stored.id)}: it changed while it was read", hint=HINT_CHECK
                )
            if not done[number]:
                done[number] = 1
                yield number, blobs
