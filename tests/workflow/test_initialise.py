"""A repository is made once, and only where its storage keeps what the plan claims of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from drctl.clock import SystemClock
from drctl.domain.plan import RepositorySpec, SecretReference, StorageSpec
from drctl.domain.secret import Secret
from drctl.errors import NoRepositoryError, RefusedError
from drctl.repository.opening import open_repository
from drctl.storage.local import LocalOptions, LocalStorage
from drctl.workflows.initialise import initialise

KEY = Secret("a key")


class ReplacingStorage(LocalStorage):
    """A storage that ignores If-None-Match, as some S3 look-alikes do: what it says of itself."""

    def refuses_overwrite(self) -> bool:
        return False


def _spec(path: Path, *, append_only: bool) -> RepositorySpec:
    storage = StorageSpec("local", LocalOptions(str(path)))
    return RepositorySpec("main", "here", storage, SecretReference(file="key"), append_only=append_only)


def test_the_claim_of_append_only_is_refused_where_writers_are_not_kept_apart(tmp_path: Path) -> None:
    storage = ReplacingStorage(LocalOptions(str(tmp_path)))
    with pytest.raises(RefusedError, match="let one writer replace"):
        initialise(storage, KEY, _spec(tmp_path, append_only=True), SystemClock())
    with pytest.raises(NoRepositoryError):
        open_repository(storage, KEY)
    initialise(storage, KEY, _spec(tmp_path, append_only=False), SystemClock())
    open_repository(storage, KEY)


def test_the_claim_of_append_only_is_kept_where_the_storage_shows_it(tmp_path: Path) -> None:
    storage = LocalStorage(LocalOptions(str(tmp_path)))
    made = initialise(storage, KEY, _spec(tmp_path, append_only=True), SystemClock())
    assert open_repository(storage, KEY).config == made.config


def test_a_repository_is_never_made_over_another(tmp_path: Path) -> None:
    storage = LocalStorage(LocalOptions(str(tmp_path)))
    first = initialise(storage, KEY, _spec(tmp_path, append_only=False), SystemClock())
    with pytest.raises(RefusedError, match="already a repository"):
        initialise(storage, Secret("another"), _spec(tmp_path, append_only=False), SystemClock())
    assert open_repository(storage, KEY).config == first.config
