"""Which packs a check reads: all, one of n parts, a share, or so many bytes of them.

Invariant: the choice depends on the packs, the sample and the seed alone, so a run can be repeated;
parts n/t of one t never overlap and together are everything.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from drctl.domain.units import parse_size
from drctl.errors import UsageError

_SHARE = re.compile(r"(\d+(?:\.\d+)?)%")
_PART = re.compile(r"(\d+)/(\d+)")
_MAX_PARTS = 256  # parts go by the first byte of a pack's id
Pack = tuple[bytes, int]  # id, stored size


@dataclass(frozen=True, slots=True)
class Everything:
    """Every pack."""

    def choose(self, packs: Sequence[Pack], seed: int) -> list[Pack]:
        """In order of their ids."""
        return sorted(packs)


@dataclass(frozen=True, slots=True)
class Part:
    """The `number`th of `total` parts (from 1), by id: as restic's n/t, and the same packs."""

    number: int
    total: int

    def choose(self, packs: Sequence[Pack], seed: int) -> list[Pack]:
        """The same at every run, but for packs that are new."""
        return sorted(pack for pack in packs if pack[0][0] % self.total == self.number - 1)


@dataclass(frozen=True, slots=True)
class Share:
    """A random share of the packs, in percent; one pack at least."""

    percent: float

    def choose(self, packs: Sequence[Pack], seed: int) -> list[Pack]:
        """So many of the packs, drawn by the seed."""
        wanted = max(1, round(len(packs) * self.percent / 100))
        return sorted(_shuffled(packs, seed)[:wanted])


@dataclass(frozen=True, slots=True)
class Amount:
    """Random packs until they have so many bytes; one pack at least."""

    bytes: int

    def choose(self, packs: Sequence[Pack], seed: int) -> list[Pack]:
        """Packs drawn by the seed, the last of which reaches the amount."""
        chosen: list[Pack] = []
        total = 0
        for pack in _shuffled(packs, seed):
            if total >= self.bytes:
                break
            chosen.append(pack)
            total += pack[1]
        return sorted(chosen)


Sample = Everything | Part | Share | Amount


def parse_sample(text: str) -> Sample:
    """`5%`, `3/10` or `2GiB`; UsageError otherwise."""
    if match := _SHARE.fullmatch(text):
        if not 0 < float(match[1]) <= 100:
            raise UsageError(f"not a share above 0% and up to 100%: {text!r}")
        return Share(float(match[1]))
    if match := _PART.fullmatch(text):
        number, total = int(match[1]), int(match[2])
        if not 1 <= number <= total <= _MAX_PARTS:
            raise UsageError(f"not a part n/t with 1 <= n <= t <= {_MAX_PARTS}: {text!r}")
        return Part(number, total)
    amount = parse_size(text)
    if not amount:
        raise UsageError("a sample of 0 bytes reads nothing")
    return Amount(amount)


def _shuffled(packs: Sequence[Pack], seed: int) -> list[Pack]:
    ordered = sorted(packs)
    random.Random(seed).shuffle(ordered)  # noqa: S311 - a sample, to be repeated from its seed
    return ordered
