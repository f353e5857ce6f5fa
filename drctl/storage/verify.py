"""The contract of `ports.Storage`, tried on a user's own storage.

Invariant: only keys below `drctl-probe/` are written, which no repository uses; they are removed
again, whatever fails. A property is passed because the storage showed it, never by default.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from drctl.errors import AbsentError, AlreadyExistsError, DrctlError, UnreachableError
from drctl.ports import Storage
from drctl.storage.keys import PROBE_PREFIX

_LARGE_BYTES = 20 * 2**20
"""More than a pack (16 MiB and a blob), so that what is uploaded in parts is tried too."""
_WRITERS = 4


@dataclass(frozen=True, slots=True)
class Finding:
    """One property of the storage. `passed` None: not claimed, so not tried. `reason` says what was
    seen."""

    what: str
    passed: bool | None
    reason: str


def verify_storage(storage: Storage) -> list[Finding]:
    """Try every property the engine relies on. UnreachableError when the storage does not answer; any
    other failure is a finding."""
    prefix = f"{PROBE_PREFIX}{secrets.token_hex(8)}/"
    try:
        findings = [_try(what, check, storage, prefix) for what, check in _CHECKS.items()]
    except UnreachableError:
        _clean(storage, prefix)
        raise
    return [*findings, _clean(storage, prefix)]


class _Wrong(Exception):
    """The storage did something else than the port promises."""


_Check = Callable[[Storage, str], str | None]
"""Returns what was seen, or None where the property is not claimed; raises _Wrong otherwise."""


def _try(what: str, check: _Check, storage: Storage, prefix: str) -> Finding:
    try:
        seen = check(storage, prefix)
    except UnreachableError:
        raise
    except (_Wrong, DrctlError) as exc:
        return Finding(what, False, str(exc))
    return Finding(what, None, "not claimed") if seen is None else Finding(what, True, seen)


def _clean(storage: Storage, prefix: str) -> Finding:
    what = "deleting removes the files of this verification"
    try:
        left = [file.key for file in storage.list(prefix)]
        for key in left:
            storage.delete(key)
        still = [file.key for file in storage.list(prefix)]
    except DrctlError as exc:
        return Finding(what, False, f"{exc}; files may be left under {prefix}")
    if still:
        return Finding(what, False, f"{len(still)} files are left under {prefix}")
    return Finding(what, True, f"{len(left)} files removed")


def _check_content(storage: Storage, prefix: str) -> str:
    for name, size in (("empty", 0), ("small", 1000), ("large", _LARGE_BYTES)):
        content = secrets.token_bytes(size)
        storage.save(prefix + name, [content[: size // 3], content[size // 3 :]])
        if storage.load(prefix + name) != content:
            raise _Wrong(f"a file of {size} bytes came back different")
        if (seen := storage.stat(prefix + name).size) != size:
            raise _Wrong(f"a file of {size} bytes is said to have {seen}")
    return f"files of 0, 1000 and {_LARGE_BYTES} bytes came back the same"


def _check_ranges(storage: Storage, prefix: str) -> str:
    content = secrets.token_bytes(100_000)
    storage.save(f"{prefix}ranges", [content])
    for offset, length in ((0, 1), (1, 99_998), (65_530, 12), (99_999, 1), (99_990, 50), (100_000, 5)):
        if storage.load(f"{prefix}ranges", offset, length) != content[offset : offset + length]:
            raise _Wrong(f"bytes {offset}+{length} of 100000 came back different")
    return "six ranges came back the same, those at and past the end included"


def _check_overwrite(storage: Storage, prefix: str) -> str:
    key = f"{prefix}taken"
    storage.save(key, [b"first"])
    try:
        storage.save(key, [b"second"])
    except AlreadyExistsError:
        if storage.load(key) != b"first":
            raise _Wrong("the second save was refused, but changed the file") from None
        return "a second save was refused"
    raise _Wrong("a second save under the same key was accepted")


def _check_writers(storage: Storage, prefix: str) -> str:
    if not storage.refuses_overwrite():
        raise _Wrong("two writers of one key are not kept apart (conditional PUT is not honoured)")

    def save(number: int) -> bool:
        try:
            storage.save(f"{prefix}race", [b"%d" % number])
        except AlreadyExistsError:
            return False
        return True

    with ThreadPoolExecutor(_WRITERS) as pool:
        won = sum(pool.map(save, range(_WRITERS)))
    if won != 1:
        raise _Wrong(f"of {_WRITERS} writers of one key, {won} were told that they won")
    return f"of {_WRITERS} writers of one key, one won"


def _check_absent(storage: Storage, prefix: str) -> str:
    for act in (storage.load, storage.stat):
        try:
            act(f"{prefix}nothing")
        except AbsentError:
            continue
        raise _Wrong("a file that was never saved is said to be there")
    storage.delete(f"{prefix}nothing")
    return "a file that was never saved is absent, and deleting it is no error"


def _check_listing(storage: Storage, prefix: str) -> str:
    sizes = {f"{prefix}list/{n % 3:02x}/{n:04x}": n for n in range(12)}
    for key, size in sizes.items():
        storage.save(key, [bytes(size)])
    listed = [(file.key, file.size) for file in storage.list(f"{prefix}list/")]
    if sorted(listed) != sorted(sizes.items()):
        raise _Wrong(f"{len(sizes)} files were saved, {len(listed)} are listed, or their sizes differ")
    return f"{len(sizes)} saved files are listed at once, each once"


def _check_deleting(storage: Storage, prefix: str) -> str:
    key = f"{prefix}deleted"
    storage.save(key, [b"x"])
    storage.delete(key)
    storage.delete(key)
    try:
        storage.stat(key)
    except AbsentError:
        storage.save(key, [b"again"])
        return "a deleted file is absent at once, and its key is free again"
    raise _Wrong("a deleted file is still there")


def _check_retention(storage: Storage, _prefix: str) -> str | None:
    match storage.retains_files():
        case None:
            return None
        case True:
            return "a file under retention could not be removed with these credentials"
        case _:
            raise _Wrong(
                "a file under retention could be removed with these credentials (no Object Lock on the "
                "bucket, or they may bypass governance: use compliance, or take that right from them)"
            )


_CHECKS: dict[str, _Check] = {
    "what was saved is loaded": _check_content,
    "ranges are loaded": _check_ranges,
    "a taken key is refused": _check_overwrite,
    "writers are kept apart": _check_writers,
    "what is not there is absent": _check_absent,
    "listings are complete": _check_listing,
    "deleting is final and can be repeated": _check_deleting,
    "retention holds": _check_retention,
}
