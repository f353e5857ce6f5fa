"""Checking a repository: everything that is wrong with it, found and named.

Invariant: nothing is written, no finding stops the check, and a storage that does not answer is an
error, never "no errors". Snapshots are read before the index and the index before the packs are
listed, so that a backup that runs meanwhile causes no false alarm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from drctl.domain.events import Emit, Finished, Noticed, Progressed, Started, ignore
from drctl.errors import AbsentError, CorruptError, ExitCode, StorageError
from drctl.ports import StoredFile
from drctl.repository.crew import Crew
from drctl.repository.finding import Finding, Severity, damage, damage_from, note
from drctl.repository.ids import hash_of, is_id
from drctl.repository.keys import MAX_KEY_FILE, decode_key_file
from drctl.repository.lock import decode_lock
from drctl.repository.packread import verify_pack
from drctl.repository.reach import Walk, mark_reachable, start_walk
from drctl.repository.repo import FileKind, Repository
from drctl.repository.sample import Amount, Sample, Share
from drctl.repository.snapshot import decode_snapshot
from drctl.repository.survey import PackListing, Survey, survey_index

HINT_UNREFERENCED = "an interrupted backup left it; prune removes it"
HINT_FOREIGN = "drctl leaves it alone; remove it by hand if nobody knows it"


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What was looked at, and all that was found."""

    findings: tuple[Finding, ...]
    snapshots: int
    packs: int
    blobs: int
    packs_read: int
    bytes_read: int
    seed: int | None  # of the sample whose packs were read; None when nothing was left to chance

    @property
    def is_damaged(self) -> bool:
        """Whether any finding is an ERROR."""
        return any(finding.severity is Severity.ERROR for finding in self.findings)

    @property
    def exit_code(self) -> ExitCode:
        """CORRUPT or OK."""
        return ExitCode.CORRUPT if self.is_damaged else ExitCode.OK


@dataclass(slots=True)
class _Findings:
    """Collects, and tells each at once: a check of a large repository takes hours."""

    emit: Emit
    all: list[Finding] = field(default_factory=list)

    def add(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self.all.append(finding)
            self.emit(Noticed(finding.line, finding.hint))


def check_repository(
    repository: Repository,
    sample: Sample | None = None,
    seed: int = 0,
    emit: Emit = ignore,
    forked: Callable[[], None] = lambda: None,
) -> CheckReport:
    """Check the structure and, with a `sample`, the content of its packs. Emits every finding as
    `Noticed` when it is found; `forked` is called once the workers are. UnreachableError when the
    storage does not answer."""
    findings = _Findings(emit)
    emit(Started("check structure"))
    snapshots = list(_read_snapshots(repository, findings))
    survey = survey_index(repository)
    findings.add(survey.findings)
    stored = _look_at_files(repository, findings)
    findings.add(_pack_findings(survey, stored))
    chosen = [] if sample is None else _choose(survey, stored, sample, seed)
    walk = start_walk(repository, survey.table)
    with Crew(walk, forked=forked) as crew:
        findings.add(mark_reachable(crew, walk, snapshots, lambda trees: emit(Progressed(trees, 0, "trees"))))
        emit(Finished("check structure"))
        if chosen:
            _read_packs(crew, survey, chosen, findings)
    return CheckReport(
        findings=tuple(findings.all),
        snapshots=len(snapshots),
        packs=len(survey.listings),
        blobs=len(survey.table),
        packs_read=len(chosen),
        bytes_read=sum(size for _, size in chosen),
        seed=seed if isinstance(sample, Share | Amount) else None,
    )


def _read_snapshots(repository: Repository, findings: _Findings) -> Iterator[tuple[str, bytes]]:
    """File and tree of each snapshot that can be read."""
    for stored in list(repository.files(FileKind.SNAPSHOT)):
        file = FileKind.SNAPSHOT.key(stored.id)
        try:
            yield file, decode_snapshot(repository.load_json(FileKind.SNAPSHOT, stored.id), file).tree
        except AbsentError:
            continue  # forgotten meanwhile
        except (CorruptError, StorageError) as exc:
            hint = "that recovery point is lost here; other copies may have it"
            findings.add([damage(file, damage_from(file, exc).what, hint)])


def _look_at_files(repository: Repository, findings: _Findings) -> dict[bytes, int]:
    """Sizes of the stored packs; keys and locks are looked into, foreign files noted."""
    packs: dict[bytes, int] = {}
    for stored in repository.storage.list(""):
        folder, _, name = stored.key.rpartition("/")
        kind = _kind_of(stored.key, folder, name)
        if kind is FileKind.PACK:
            packs[bytes.fromhex(name)] = stored.size
        elif kind is not None:
            findings.add(_LOOKS.get(kind, _nothing)(repository, stored, bytes.fromhex(name)))
        elif stored.key != "config":
            findings.add([note(stored.key, "not a file of this repository", HINT_FOREIGN)])
    return packs


def _kind_of(key: str, folder: str, name: str) -> FileKind | None:
    if not is_id(name):
        return None
    kind = next((kind for kind in FileKind if kind.value == folder.partition("/")[0]), None)
    return kind if kind is not None and key == kind.key(bytes.fromhex(name)) else None


def _key_finding(repository: Repository, stored: StoredFile, identifier: bytes) -> list[Finding]:
    try:
        data = repository.storage.load(stored.key, 0, MAX_KEY_FILE + 1)
        if hash_of(data) != identifier:
            raise CorruptError(f"{stored.key}: its bytes do not hash to its name")
        decode_key_file(data, stored.key)
    except AbsentError:
        return []  # removed meanwhile
    except (CorruptError, StorageError) as exc:
        hint = "the key that opened this repository works; add the damaged one's password anew"
        return [damage(stored.key, damage_from(stored.key, exc).what, hint)]
    return []


def _lock_finding(repository: Repository, stored: StoredFile, identifier: bytes) -> list[Finding]:
    try:
        json = repository.load_json(FileKind.LOCK, identifier)
        decode_lock(json, identifier, stored.modified, stored.key)
    except AbsentError:
        return []  # released meanwhile
    except (CorruptError, StorageError) as exc:
        return [damage(stored.key, damage_from(stored.key, exc).what, "remove it: drctl repo unlock")]
    return []


def _nothing(_repository: Repository, _stored: StoredFile, _identifier: bytes) -> list[Finding]:
    return []


_Look = Callable[[Repository, StoredFile, bytes], list[Finding]]
_LOOKS: dict[FileKind, _Look] = {FileKind.KEY: _key_finding, FileKind.LOCK: _lock_finding}


def _pack_findings(survey: Survey, stored: dict[bytes, int]) -> Iterator[Finding]:
    for listing in survey.listings:
        size = stored.get(listing.id)
        if size is None:
            yield damage(listing.file, f"missing; the index lists {listing.blobs} blobs in it")
        elif size != listing.size:
            yield damage(listing.file, f"has {size} bytes, by the index {listing.size}")
        if listing.kind is None and listing.blobs:
            yield note(listing.file, "holds data and trees mixed", "prune separates them")
    for pack in stored:
        if survey.listing(pack) is None:
            yield note(FileKind.PACK.key(pack), "in no index", HINT_UNREFERENCED)
    if survey.duplicates:
        yield note("index/", f"{survey.duplicates} blobs are stored more than once", "prune removes them")


def _choose(survey: Survey, stored: dict[bytes, int], sample: Sample, seed: int) -> list[tuple[bytes, int]]:
    packs = [(listing.id, stored[listing.id]) for listing in survey.listings if listing.id in stored]
    return sample.choose(packs, seed)


def _read_packs(
    crew: Crew[Walk], survey: Survey, chosen: list[tuple[bytes, int]], findings: _Findings
) -> None:
    emit = findings.emit
    emit(Started("read packs", len(chosen), sum(size for _, size in chosen)))
    tasks = ((listing, size) for pack, size in chosen if (listing := survey.listing(pack)))
    done = bytes_done = 0
    for size, wrong in crew.run(_read_one, lambda: next(tasks, None)):
        findings.add(wrong)
        done, bytes_done = done + 1, bytes_done + size
        emit(Progressed(done, bytes_done, "packs"))
    emit(Finished("read packs"))


def _read_one(walk: Walk, task: tuple[PackListing, int]) -> tuple[int, list[Finding]]:
    listing, size = task
    return size, verify_pack(walk.repository, listing, size)
