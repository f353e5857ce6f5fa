"""Planning a prune: which packs stay, are rewritten or go, each with its reason. Pure.

Invariant: a pack with a needed blob is kept or repacked, never just removed; facts that do not
hold together (a needed pack missing, a pack written under our exclusive lock) end in an error,
and then nothing is deleted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from drctl.domain.units import parse_size, show_size
from drctl.errors import CorruptError, LockedError, RefusedError, UsageError
from drctl.repository.pack import PACK_TARGET, BlobType
from drctl.repository.repo import FileKind, StoredId

SMALL_PACK = PACK_TARGET // 4
MANY_SMALL = 10  # so many small packs of one type are joined
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)%")
HINT_CHECK = "nothing was deleted; look closer with: drctl repo check"


@dataclass(frozen=True, slots=True)
class UnusedLimit:
    """How many unused bytes may stay: a share of the pruned repository, or a number."""

    percent: float | None = 5.0
    bytes: int = 0

    def allowed(self, used: int) -> int:
        """Unused bytes that may stay beside `used` ones."""
        if self.percent is None:
            return self.bytes
        return int(used * self.percent / (100 - self.percent))

    @property
    def is_zero(self) -> bool:
        """Whether no unused byte may stay: the proof of absence."""
        return not self.percent and not self.bytes


def parse_unused_limit(text: str) -> UnusedLimit:
    """`5%`, `0` or `500MiB`; UsageError otherwise."""
    if text.strip() == "0":
        return UnusedLimit(None, 0)
    if match := _PERCENT.fullmatch(text.strip()):
        if float(match[1]) >= 100:
            raise UsageError(f"not a share below 100%: {text!r}")
        return UnusedLimit(float(match[1]))
    return UnusedLimit(None, parse_size(text))


# --- facts ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PackFacts:
    """One pack that the index names. Bytes are stored ones; `size` is by the index."""

    id: bytes
    kind: BlobType | None  # None: mixed
    size: int
    stored_size: int | None  # None: the storage does not list it
    blobs: int
    used_blobs: int  # needed, and this pack's copy is the one to keep
    used_bytes: int
    body_bytes: int  # of all its blobs

    @property
    def unused_bytes(self) -> int:
        """Blobs that nothing needs, and needless copies."""
        return self.body_bytes - self.used_bytes

    @property
    def file(self) -> str:
        """Its storage key."""
        return FileKind.PACK.key(self.id)


@dataclass(frozen=True, slots=True)
class PruneFacts:
    """All a plan needs to know. `locked_at` is the storage's time of our exclusive lock."""

    packs: tuple[PackFacts, ...]
    unreferenced: tuple[StoredId, ...]
    locked_at: datetime
    snapshots: int


# --- plan ----------------------------------------------------------------------------------


class Fate(Enum):
    """What becomes of a pack."""

    KEEP = "keep"
    REPACK = "repack"
    REMOVE = "remove"
    DROP = "drop"  # out of the index: it is missing, and nothing needs it


@dataclass(frozen=True, slots=True)
class PackVerdict:
    """A pack's fate and why. `freed` is in bytes."""

    id: bytes
    fate: Fate
    reason: str
    size: int
    freed: int

    @property
    def file(self) -> str:
        """Its storage key."""
        return FileKind.PACK.key(self.id)


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """The verdicts over all packs, those in no index included."""

    verdicts: tuple[PackVerdict, ...]
    limit: UnusedLimit
    used_bytes: int
    unused_before: int
    unused_after: int

    def packs(self, *fates: Fate) -> list[PackVerdict]:
        """Those of some fates."""
        return [verdict for verdict in self.verdicts if verdict.fate in fates]

    @property
    def freed_bytes(self) -> int:
        """What the repository shrinks by, about."""
        return sum(verdict.freed for verdict in self.verdicts)

    @property
    def repacked_bytes(self) -> int:
        """Needed bytes that are written anew."""
        return sum(verdict.size - verdict.freed for verdict in self.packs(Fate.REPACK))

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.packs(Fate.REPACK, Fate.REMOVE, Fate.DROP)

    @property
    def proves_absence(self) -> bool:
        """Whether after it no byte that no snapshot needs is left in the repository."""
        return self.limit.is_zero


def plan_prune(
    facts: PruneFacts,
    limit: UnusedLimit = UnusedLimit(),
    *,
    remove_everything: bool = False,
) -> PrunePlan:
    """Decide over every pack. CorruptError when a needed pack is missing or not as the index says,
    LockedError when somebody writes although the repository is locked, RefusedError when no snapshot
    is there but data is, unless `remove_everything`: nothing is to be done then."""
    if facts.packs and not facts.snapshots and not remove_everything:
        raise RefusedError(
            f"there is no snapshot, so all {len(facts.packs)} packs would be removed",
            hint="if snapshots are missing, bring them back; if all were to go: --remove-everything",
        )
    _refuse_damage(facts.packs)
    _refuse_writers(facts)
    used = sum(pack.used_bytes for pack in facts.packs)
    reasons = _reasons_to_repack(facts.packs, limit, used)
    verdicts = [
        _verdict(pack, reasons.get(pack.id)) for pack in sorted(facts.packs, key=lambda pack: pack.id)
    ]
    strays = [
        PackVerdict(stray.id, Fate.REMOVE, "in no index: an interrupted run left it", stray.size, stray.size)
        for stray in sorted(facts.unreferenced, key=lambda stray: stray.id)
    ]
    kept = {verdict.id for verdict in verdicts if verdict.fate is Fate.KEEP}
    return PrunePlan(
        verdicts=tuple(verdicts + strays),
        limit=limit,
        used_bytes=used,
        unused_before=sum(pack.unused_bytes for pack in facts.packs),
        unused_after=sum(pack.unused_bytes for pack in facts.packs if pack.id in kept),
    )


def _refuse_damage(packs: Iterable[PackFacts]) -> None:
    for pack in packs:
        if not pack.used_blobs or pack.stored_size == pack.size:
            continue
        found = "missing" if pack.stored_size is None else f"{pack.stored_size} bytes instead of {pack.size}"
        raise CorruptError(
            f"{pack.file}: {found}, and {pack.used_blobs} blobs in it are needed", hint=HINT_CHECK
        )


def _refuse_writers(facts: PruneFacts) -> None:
    for stray in facts.unreferenced:
        # the exclusive lock keeps every honest writer out: its packs are older than the lock
        if stray.stored_at > facts.locked_at:
            raise LockedError(
                f"{FileKind.PACK.key(stray.id)} was written after the repository was locked for the prune",
                hint="somebody writes without a lock: end that first; nothing was deleted",
            )


def _verdict(pack: PackFacts, reason: str | None) -> PackVerdict:
    if not pack.used_blobs:
        if pack.stored_size is None:
            return PackVerdict(pack.id, Fate.DROP, "missing, and nothing needs it", 0, 0)
        return PackVerdict(
            pack.id, Fate.REMOVE, "nothing in it is needed", pack.stored_size, pack.stored_size
        )
    if reason:
        return PackVerdict(pack.id, Fate.REPACK, reason, pack.size, pack.unused_bytes)
    share = (
        f"{_percent(pack)} of it is not needed, within the limit" if pack.unused_bytes else "all is needed"
    )
    return PackVerdict(pack.id, Fate.KEEP, share, pack.size, 0)


def _reasons_to_repack(packs: Sequence[PackFacts], limit: UnusedLimit, used: int) -> dict[bytes, str]:
    needed = [pack for pack in packs if pack.used_blobs]
    reasons = {pack.id: why for pack in needed if (why := _must_repack(pack, limit))}
    left = sum(pack.unused_bytes for pack in needed if pack.id not in reasons)
    allowed = limit.allowed(used)
    for pack in sorted(needed, key=lambda pack: (-pack.unused_bytes / max(pack.body_bytes, 1), pack.id)):
        if left <= allowed:
            break
        if pack.unused_bytes and pack.id not in reasons:
            reasons[pack.id] = f"{_percent(pack)} of it ({show_size(pack.unused_bytes)}) is not needed"
            left -= pack.unused_bytes
    return reasons | _small_packs(needed, reasons)


def _must_repack(pack: PackFacts, limit: UnusedLimit) -> str | None:
    if pack.kind is None:
        return "data and trees are mixed in it"
    if not pack.unused_bytes:
        return None
    if limit.is_zero:
        return f"{show_size(pack.unused_bytes)} in it must not stay"
    if pack.kind is BlobType.TREE:
        return f"{_percent(pack)} of its trees are not needed, and trees are read often"
    return None


def _small_packs(needed: Iterable[PackFacts], reasons: dict[bytes, str]) -> dict[bytes, str]:
    """Many small packs of one type are joined; what others leave over makes one more."""
    joined: dict[bytes, str] = {}
    packs = list(needed)
    for kind in BlobType:
        small = [p for p in packs if p.kind is kind and p.size < SMALL_PACK and p.id not in reasons]
        left_over = any(p.id in reasons and p.kind in (kind, None) for p in packs)
        if len(small) + left_over >= MANY_SMALL:
            joined |= {p.id: f"one of {len(small)} small packs" for p in small}
    return joined


def _percent(pack: PackFacts) -> str:
    return f"{100 * pack.unused_bytes / max(pack.body_bytes, 1):.0f}%"
