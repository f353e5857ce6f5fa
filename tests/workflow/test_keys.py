"""Keys: a new one opens, a removed one does not, and the last one cannot be removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from drctl.clock import SystemClock
from drctl.domain.secret import Secret
from drctl.errors import RefusedError, UsageError, WrongKeyError
from drctl.repository.opening import create_repository, open_repository
from drctl.repository.repo import FileKind, Repository
from drctl.storage.local import LocalOptions, LocalStorage
from drctl.workflows.keys import add_key, find_key, list_keys, remove_key
from tests import restic
from tests.format.goldens import files
from tests.workflow.upkeep_cases import open_local

NEW = Secret("a new pass phrase")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    storage = LocalStorage(LocalOptions(str(tmp_path / "repo")))
    return create_repository(storage, restic.PASSWORD, SystemClock(), cost=restic.CHEAP)


def _open(repository: Repository, key: Secret) -> Repository:
    return open_repository(repository.storage, key)


def test_a_new_key_opens_the_repository_to_us_and_to_restic(repository: Repository, tmp_path: Path) -> None:
    identifier = add_key(repository, NEW, SystemClock(), restic.CHEAP)
    assert _open(repository, NEW).key_id == identifier
    passwords = tmp_path / "password"
    passwords.write_text(NEW.reveal())
    restic.run(restic.PROGRAMS[0], tmp_path / "repo", "snapshots", "--password-file", str(passwords))


def test_keys_are_listed_with_the_one_in_use(repository: Repository) -> None:
    identifier = add_key(repository, NEW, SystemClock(), restic.CHEAP)
    rows = list_keys(repository)
    assert [(row.id, row.in_use) for row in rows] == [(repository.key_id, True), (identifier, False)]
    assert all(row.created and row.hostname for row in rows)


def test_a_damaged_key_is_listed_with_its_problem(repository: Repository, tmp_path: Path) -> None:
    identifier = add_key(repository, NEW, SystemClock(), restic.CHEAP)
    (tmp_path / "repo" / FileKind.KEY.key(identifier)).write_bytes(b"{torn")
    problems = {row.id: row.problem for row in list_keys(repository)}
    assert problems[repository.key_id] is None
    assert identifier.hex() in (problems[identifier] or "")


def test_a_removed_key_opens_nothing(repository: Repository) -> None:
    identifier = add_key(repository, NEW, SystemClock(), restic.CHEAP)
    remove_key(repository, identifier)
    with pytest.raises(WrongKeyError):
        _open(repository, NEW)
    _open(repository, restic.PASSWORD)


def test_the_key_in_use_is_not_removed(repository: Repository) -> None:
    add_key(repository, NEW, SystemClock(), restic.CHEAP)
    with pytest.raises(RefusedError):
        remove_key(repository, repository.key_id)


def test_the_last_key_is_not_removed_even_when_ours_went_meanwhile(repository: Repository) -> None:
    identifier = add_key(repository, NEW, SystemClock(), restic.CHEAP)
    other = _open(repository, NEW)
    remove_key(other, repository.key_id)
    with pytest.raises(RefusedError, match="last"):
        remove_key(repository, identifier)
    _open(repository, NEW)


def test_an_empty_key_is_refused(repository: Repository) -> None:
    with pytest.raises(UsageError):
        add_key(repository, Secret(""), SystemClock())
    assert len(list_keys(repository)) == 1


def test_a_key_is_named_by_the_beginning_of_its_id(repository: Repository) -> None:
    assert find_key(repository, repository.key_id.hex()[:8].upper()).in_use
    for prefix in ("", "xyz"):
        add_key(repository, NEW, SystemClock(), restic.CHEAP)
        with pytest.raises(UsageError):
            find_key(repository, prefix)


def test_a_key_file_that_does_not_open_when_read_back_is_removed(
    repository: Repository, tmp_path: Path
) -> None:
    class Flipping(LocalStorage):
        """Damages a key file's last half as soon as it is stored."""

        def save(self, key: str, parts: object) -> None:
            super().save(key, parts)  # type: ignore[arg-type]
            if key.startswith("keys/"):
                path = tmp_path / "repo" / key
                path.write_bytes(path.read_bytes().replace(b'"data":"', b'"data":"AAAA'))

    repository.storage = Flipping(LocalOptions(str(tmp_path / "repo")))
    with pytest.raises(WrongKeyError):
        add_key(repository, NEW, SystemClock(), restic.CHEAP)
    assert len(files(tmp_path / "repo", FileKind.KEY)) == 1
    assert open_local(tmp_path / "repo").key_id == repository.key_id
