"""Making a repository, and proving what its plan claims of the storage.

Invariant: a repository exists only after its claims were proven; a place that cannot keep two writers
apart is never called append-only (safety: storage ignores If-None-Match -> the claim is refused).
"""

from __future__ import annotations

from drctl.domain.plan import RepositorySpec
from drctl.domain.secret import Secret
from drctl.errors import RefusedError
from drctl.ports import Clock, Storage
from drctl.repository.opening import create_repository
from drctl.repository.repo import Repository


def initialise(storage: Storage, key: Secret, spec: RepositorySpec, clock: Clock) -> Repository:
    """Make the repository of `spec`. RefusedError where one is already, or where `append_only` is
    claimed and the storage let a second writer replace the first one's file."""
    if spec.append_only and not storage.refuses_overwrite():
        raise RefusedError(
            f"repository {spec.name}: {storage.location} let one writer replace another's file",
            hint="it cannot be append_only; take the claim out of the plan, or use another storage",
        )
    return create_repository(storage, key, clock, compression=spec.compression)
