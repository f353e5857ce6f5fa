"""Reading a stored pack whole: its name, its header, and every blob in it.

Invariant: every byte of the file is hashed and every blob opened, in bounded memory whatever its
size or its header claim; what is wrong is returned, all of it, and reading goes on.
"""

from __future__ import annotations

import hashlib

from drctl.errors import AbsentError, CorruptError, StorageError
from drctl.repository.codec import Codec
from drctl.repository.crypto import IV_LENGTH, OVERHEAD, TAG_LENGTH, Sealer
from drctl.repository.finding import Finding, damage, damage_from
from drctl.repository.ids import hash_of, short
from drctl.repository.pack import PackedBlob, encode_header, open_header, sealed_header_length
from drctl.repository.reach import stretches
from drctl.repository.repo import Repository
from drctl.repository.survey import PackListing, header_digest, max_plain

WHOLE = 32 * 2**20  # packs up to this size are read at once; restic's are 16 MiB unless told otherwise
_TAIL = 4
HINT_PACK = "what lies in it must come from another copy, or from a new backup of the source"


def verify_pack(repository: Repository, listing: PackListing, size: int) -> list[Finding]:
    """What is wrong with a pack of `size` stored bytes. UnreachableError is raised."""
    try:
        return _verify(repository, listing, size)
    except AbsentError:
        return [damage(listing.file, "vanished while it was read", "is a prune running?")]
    except (CorruptError, StorageError) as exc:
        return [damage(listing.file, damage_from(listing.file, exc).what, exc.hint or HINT_PACK)]


def _verify(repository: Repository, listing: PackListing, size: int) -> list[Finding]:
    file = listing.file
    whole = PackWindow(repository, file, size)
    try:
        blobs, body = read_header(repository, whole)
    except CorruptError as exc:
        # whether the name's hash still fits says if it was damaged here or made so
        return [damage(file, damage_from(file, exc).what, HINT_PACK), *_hash_only(whole, listing)]
    findings = []
    if header_digest(encode_header(blobs)) != listing.digest:
        findings.append(damage(file, f"its header ({len(blobs)} blobs) is not what the index says of it"))
    digest = hashlib.sha256()
    for stretch in stretches(blobs, gap=0, limit=WHOLE):
        findings += _verify_stretch(repository, file, stretch, whole, digest)
    digest.update(whole.read(body, size - body))
    return findings + _name_finding(listing, digest.digest())


def read_header(repository: Repository, whole: PackWindow) -> tuple[list[PackedBlob], int]:
    """The blobs of a pack by its own header, and where they end. CorruptError names the pack."""
    tail = whole.read(max(whole.size - _TAIL, 0), min(_TAIL, whole.size))
    header_length = sealed_header_length(tail, whole.size, whole.file)
    body = whole.size - _TAIL - header_length
    return open_header(whole.read(body, header_length), body, repository.sealer(), whole.file), body


def _verify_stretch(
    repository: Repository, file: str, stretch: list[PackedBlob], whole: PackWindow, digest: hashlib._Hash
) -> list[Finding]:
    start = stretch[0].offset
    length = stretch[-1].offset + stretch[-1].length - start
    if length > max(max_plain(blob.type) + OVERHEAD for blob in stretch):
        _hash_slices(whole, start, length, digest)
        # only a blob that comes alone makes a stretch this long
        return [damage(file, f"blob {short(stretch[0].id)} of {length} bytes is larger than any can be")]
    data = whole.read(start, length)
    digest.update(data)
    findings = []
    sealer, codec = repository.sealer(), repository.codec()
    for blob in stretch:
        at = blob.offset - start
        if not _opens(sealer, codec, data[at : at + blob.length], blob):
            findings.append(_what_is_wrong(repository, file, data[at : at + blob.length], blob))
    return findings


def _opens(sealer: Sealer, codec: Codec, sealed: memoryview, blob: PackedBlob) -> bool:
    """As `Repository.open_blob`, without what a message takes: most blobs are small, and sound."""
    if len(sealed) < OVERHEAD or blob.plain_length > max_plain(blob.type):
        return False
    try:
        iv, cipher, tag = (
            bytes(sealed[:IV_LENGTH]),
            sealed[IV_LENGTH:-TAG_LENGTH],
            bytes(sealed[-TAG_LENGTH:]),
        )
        plain = sealer.open_parts(iv, cipher, tag, "")
        if blob.raw_length:
            plain = codec.decompress(plain, blob.raw_length, "")
    except CorruptError:
        return False
    return hash_of(plain) == blob.id


def _what_is_wrong(repository: Repository, file: str, sealed: memoryview, blob: PackedBlob) -> Finding:
    try:
        repository.open_blob(sealed, blob, file)
    except CorruptError as exc:
        return damage(file, damage_from(file, exc).what, HINT_PACK)
    return damage(
        file, f"blob {short(blob.id)} opens at one time and not at another", "test this machine's memory"
    )


def _hash_only(whole: PackWindow, listing: PackListing) -> list[Finding]:
    digest = hashlib.sha256()
    _hash_slices(whole, 0, whole.size, digest)
    return _name_finding(listing, digest.digest())


def _hash_slices(whole: PackWindow, start: int, length: int, digest: hashlib._Hash) -> None:
    for offset in range(start, start + length, WHOLE):
        digest.update(whole.read(offset, min(WHOLE, start + length - offset)))


def _name_finding(listing: PackListing, digest: bytes) -> list[Finding]:
    if digest == listing.id:
        return []
    return [damage(listing.file, "its bytes do not hash to its name", HINT_PACK)]


class PackWindow:
    """A stored file of known size: read at once when small, in ranges when not."""

    def __init__(self, repository: Repository, file: str, size: int) -> None:
        self.size = size
        self.file = file
        self._storage = repository.storage
        self._all: memoryview | None = None

    def read(self, offset: int, length: int) -> memoryview:
        """Exactly that range; CorruptError when the file ends before."""
        if self.size <= WHOLE and self._all is None:
            self._all = memoryview(self._storage.load(self.file, 0, self.size))
        if self._all is not None:
            data = self._all[offset : offset + length]
        else:
            data = memoryview(self._storage.load(self.file, offset, length))
        if len(data) != length:
            raise CorruptError(f"{self.file}: ends before byte {offset + length}")
        return data
