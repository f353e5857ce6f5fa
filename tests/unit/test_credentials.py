"""Where secrets come from, and that they stay there."""

from __future__ import annotations

from pathlib import Path

import pytest

from drctl.credentials import read_secret
from drctl.domain.plan import SecretReference
from drctl.errors import RefusedError, UsageError

CANARY = "canary-9f27d1"


def _key_file(tmp_path: Path, text: str = CANARY + "\n", mode: int = 0o600) -> SecretReference:
    path = tmp_path / "key"
    path.write_text(text)
    path.chmod(mode)
    return SecretReference(file=str(path))


def test_a_key_file_gives_its_text_without_the_line_end(tmp_path: Path) -> None:
    assert read_secret(_key_file(tmp_path), {}, "key").reveal() == CANARY


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o777])
def test_a_key_file_that_others_may_use_is_refused_with_the_command_that_mends_it(
    tmp_path: Path, mode: int
) -> None:
    with pytest.raises(RefusedError) as refused:
        read_secret(_key_file(tmp_path, mode=mode), {}, "key")
    assert refused.value.hint == f"chmod 0600 {tmp_path / 'key'}"


def test_a_key_file_that_opens_but_does_not_read_is_named() -> None:
    unreadable = SecretReference(file="/proc/self/mem")  # reading its first page is EIO
    with pytest.raises(UsageError, match=r"key: /proc/self/mem: Input/output error"):
        read_secret(unreadable, {}, "key")


def test_a_command_gives_its_standard_output() -> None:
    assert read_secret(SecretReference(command=("printf", CANARY)), {}, "key").reveal() == CANARY


def test_an_environment_variable_gives_its_value() -> None:
    assert read_secret(SecretReference(environment="KEY"), {"KEY": CANARY}, "key").reveal() == CANARY


def test_a_systemd_credential_is_read_from_its_directory(tmp_path: Path) -> None:
    _key_file(tmp_path)
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert read_secret(SecretReference(credential="key"), environment, "key").reveal() == CANARY


@pytest.mark.parametrize(
    ("reference", "environment"),
    [
        (SecretReference(file="/nowhere/key"), {}),
        (SecretReference(file="/etc"), {}),
        (SecretReference(command=("false",)), {}),
        (SecretReference(command=("/nowhere/tool",)), {}),
        (SecretReference(command=("true",)), {}),
        (SecretReference(environment="KEY"), {}),
        (SecretReference(credential="key"), {}),
        (SecretReference(credential="../key"), {"CREDENTIALS_DIRECTORY": "/etc"}),
    ],
)
def test_a_secret_that_is_not_there_is_a_usage_error_that_says_which(
    reference: SecretReference, environment: dict[str, str]
) -> None:
    with pytest.raises(UsageError, match="key of main"):
        read_secret(reference, environment, "key of main")


def test_no_error_shows_a_part_of_the_secret(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(CANARY.encode() + b"\xff")
    path.chmod(0o600)
    with pytest.raises(UsageError) as refused:
        read_secret(SecretReference(file=str(path)), {}, "key")
    assert CANARY not in f"{refused.value!r} {refused.value.__cause__!r}"
