"""Finding a kind of storage by its name."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import subprocess
import sys
import types

import pytest

from drctl.errors import StorageError, UsageError
from drctl.storage import REGISTRY, storage_kind, storage_kinds
from drctl.storage.keys import check_key, check_prefix, is_key, is_own_temporary, is_visible, temporary_name
from drctl.testing.storage_contract import BAD_KEYS


@pytest.mark.parametrize("name", REGISTRY)
def test_every_kind_has_a_class_and_frozen_options(name: str) -> None:
    kind = storage_kind(name)
    assert kind.storage.Options is kind.options
    assert dataclasses.is_dataclass(kind.options)
    assert kind.options.__dataclass_params__.frozen  # type: ignore[attr-defined]


def test_an_unknown_kind_is_met_with_the_nearest_name() -> None:
    with pytest.raises(UsageError) as caught:
        storage_kind("stfp")
    assert caught.value.hint == "did you mean sftp?"
    with pytest.raises(UsageError) as caught:
        storage_kind("zzz")
    assert caught.value.hint == "known: local, s3, sftp"


def test_an_installed_package_adds_a_kind_and_cannot_replace_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = types.ModuleType("a_plugin")
    plugin.Tape = type("Tape", (), {"Options": dict})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "a_plugin", plugin)
    points = [
        importlib.metadata.EntryPoint(name, "a_plugin:Tape", "drctl.storage") for name in ("tape", "local")
    ]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: points if group else [])
    assert storage_kind("tape").storage.__name__ == "Tape"
    assert storage_kinds()["local"] == REGISTRY["local"]


def test_a_broken_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    point = importlib.metadata.EntryPoint("tape", "not_there:Tape", "drctl.storage")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: [point] if group else [])
    with pytest.raises(UsageError, match="not_there:Tape"):
        storage_kind("tape")


def test_loading_the_kinds_loads_no_heavy_library() -> None:
    script = (
        "import sys, drctl.remote, drctl.storage as s; [s.storage_kind(k) for k in s.REGISTRY];"
        "import drctl.storage.wrappers, drctl.storage.verify;"
        "print(*[m for m in ('boto3', 'botocore', 'paramiko', 'tenacity', 'pytest') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


@pytest.mark.parametrize("key", BAD_KEYS)
def test_what_is_no_key_is_refused(key: str) -> None:
    assert not is_key(key)
    with pytest.raises(StorageError):
        check_key(key)


def test_keys_of_the_repository_and_of_probes_are_keys() -> None:
    for key in ("config", "keys/" + "0f" * 32, "data/0f/" + "0f" * 32, "drctl-probe/0a/list/00/0001"):
        assert check_key(key) == key
        assert is_key(key)
    assert [check_prefix(prefix) for prefix in ("", "data/", "data/0f/")] == ["", "data/", "data/0f/"]


def test_no_temporary_file_has_a_keys_name() -> None:
    name = temporary_name()
    assert is_own_temporary(name)
    assert not is_visible(name)
    assert temporary_name() != name
