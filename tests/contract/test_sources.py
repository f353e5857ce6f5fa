"""One contract over every source, each on the real thing; and what every entry of the registry owes."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from drctl.errors import UsageError
from drctl.ports import StreamSource, TreeSource
from drctl.sources import REGISTRY, REMOTE_REGISTRY, all_sources, load_source
from drctl.sources.command import CommandOptions, CommandSource
from drctl.sources.files import FilesOptions, FilesSource
from drctl.sources.image import ImageOptions, ImageSource
from drctl.sources.remote_files import RemoteFilesSource
from drctl.testing.source_contract import StreamSourceContract, TreeSourceContract
from tests.servers.ssh import SshServer

SAMPLE: dict[str, dict[str, Any]] = {
    "files": {"paths": ["/etc"]},
    "command": {"command": ["true"], "filename": "f"},
    "image": {"path": "/dev/sda"},
}


def make_tree(place: Path) -> dict[bytes, bytes]:
    """A small tree of everything a tree may hold; what its files must read as."""
    base = os.fsencode(place)
    files = {
        b"/a": b"a",
        b"/empty": b"",
        b"/dir/sub/deep": b"deep",
        b"/dir/large": os.urandom(3_000_000),
        b"/\xff\n\xfe": b"odd",
        b"/sparse": bytes(1 << 20) + b"end",
    }
    for name, content in files.items():
        os.makedirs(os.path.dirname(base + name), exist_ok=True)
        if name == b"/sparse":
            with open(base + name, "wb") as sparse:
                sparse.seek(1 << 20)
                sparse.write(b"end")
        else:
            Path(os.fsdecode(base + name)).write_bytes(content)
    os.mkdir(base + b"/hollow")
    os.symlink(b"a", base + b"/link")
    os.mkfifo(base + b"/fifo")
    return {base + name: content for name, content in files.items()}


class TestFiles(TreeSourceContract):
    @pytest.fixture
    def expected(self, tmp_path: Path) -> dict[bytes, bytes]:
        return make_tree(tmp_path)

    @pytest.fixture
    def source(self, tmp_path: Path, expected: dict[bytes, bytes]) -> Iterator[TreeSource]:
        source = FilesSource(FilesOptions(paths=(str(tmp_path),)))
        yield source
        source.close()


class TestFilesWithEveryRule(TestFiles):
    @pytest.fixture
    def source(self, tmp_path: Path, expected: dict[bytes, bytes]) -> Iterator[TreeSource]:
        source = FilesSource(
            FilesOptions(
                paths=(str(tmp_path), str(tmp_path / "dir")),
                exclude=("*.o", "!x.o"),
                exclude_caches=True,
                exclude_if_present=(".skip",),
                one_file_system=True,
            )
        )
        yield source
        source.close()


class TestOneFile(TreeSourceContract):
    @pytest.fixture
    def expected(self, tmp_path: Path) -> dict[bytes, bytes]:
        make_tree(tmp_path)
        return {os.fsencode(tmp_path / "a"): b"a"}

    @pytest.fixture
    def source(self, tmp_path: Path, expected: dict[bytes, bytes]) -> TreeSource:
        return FilesSource(FilesOptions(paths=(str(tmp_path / "a"),)))


class TestRemoteFiles(TestFiles):
    @pytest.fixture
    def source(self, tmp_path: Path, expected: dict[bytes, bytes], sshd: SshServer) -> Iterator[TreeSource]:
        source = RemoteFilesSource(FilesOptions(paths=(str(tmp_path),)), sshd.remote())
        yield source
        source.close()


class TestImageFile(TreeSourceContract):
    @pytest.fixture
    def expected(self, tmp_path: Path) -> dict[bytes, bytes]:
        content = os.urandom(100_000) + bytes(2 << 20) + b"end"
        with (tmp_path / "disk.img").open("wb") as image:
            image.write(content[:100_000])
            image.seek(100_000 + (2 << 20))
            image.write(b"end")
        return {os.fsencode(tmp_path / "disk.img"): content}

    @pytest.fixture
    def source(self, tmp_path: Path, expected: dict[bytes, bytes]) -> TreeSource:
        return ImageSource(ImageOptions(path=str(tmp_path / "disk.img")))


@pytest.mark.skipif(os.geteuid() != 0, reason="a loop device needs root")
class TestImageOfADevice(TreeSourceContract):
    @pytest.fixture
    def device(self, tmp_path: Path) -> Iterator[str]:
        (tmp_path / "disk.img").write_bytes(os.urandom(3 << 20))
        made = ["losetup", "--find", "--show", str(tmp_path / "disk.img")]
        device = subprocess.run(made, check=True, capture_output=True, text=True).stdout.strip()
        yield device
        subprocess.run(["losetup", "--detach", device], check=True)

    @pytest.fixture
    def expected(self, tmp_path: Path, device: str) -> dict[bytes, bytes]:
        return {os.fsencode(device): (tmp_path / "disk.img").read_bytes()}

    @pytest.fixture
    def source(self, device: str) -> TreeSource:
        return ImageSource(ImageOptions(path=device))


class TestCommand(StreamSourceContract):
    @pytest.fixture
    def expected(self, tmp_path: Path) -> bytes:
        data = os.urandom(3_000_001)
        (tmp_path / "dump").write_bytes(data)
        return data

    @pytest.fixture
    def source(self, tmp_path: Path, expected: bytes) -> StreamSource:
        return CommandSource(CommandOptions(command=("cat", str(tmp_path / "dump")), filename="dump"))

    @pytest.fixture
    def broken(self) -> StreamSource:
        script = "head -c 100000 /dev/zero; exit 7"
        return CommandSource(CommandOptions(command=("sh", "-c", script), filename="dump"))

    @pytest.fixture
    def empty(self) -> StreamSource:
        return CommandSource(CommandOptions(command=("true",), filename="dump"))


# --- the registry ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", REGISTRY)
def test_options_are_frozen_checked_and_described(kind: str) -> None:
    options: Any = load_source(kind).Options  # type: ignore[attr-defined]
    assert dataclasses.is_dataclass(options)
    made = TypeAdapter(options).validate_python(SAMPLE[kind])
    assert type(made) is options
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, dataclasses.fields(options)[0].name, ())
    with pytest.raises(ValidationError):
        TypeAdapter(options).validate_python(SAMPLE[kind] | {"no_such_option": 1})
    for field in dataclasses.fields(options):
        assert field.metadata["description"], field.name
        assert f"{field.name}:" in (options.__doc__ or "")


@pytest.mark.parametrize("kind", REMOTE_REGISTRY)
def test_a_kind_has_the_same_options_on_another_host(kind: str) -> None:
    here, there = load_source(kind), load_source(kind, remote=True)
    assert here.Options is there.Options  # type: ignore[attr-defined]


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(UsageError) as failed:
        load_source("flies")
    assert failed.value.hint == "did you mean 'files'?"
    with pytest.raises(UsageError) as failed:
        load_source("zzz")
    assert failed.value.hint == "known: command, files, image"


def test_a_kind_that_cannot_be_remote_says_so() -> None:
    with pytest.raises(UsageError, match="cannot be read from another host"):
        load_source("image", remote=True)


def test_a_plug_in_is_found_by_its_entry_point_and_cannot_replace_a_built_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = tmp_path / "plugin-1.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1\n")
    (described / "entry_points.txt").write_text(
        "[drctl.sources]\nwidgets = widgets_source:Widgets\nfiles = widgets_source:Widgets\n"
    )
    (tmp_path / "widgets_source.py").write_text("class Widgets:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert load_source("widgets").__name__ == "Widgets"
    assert load_source("files") is FilesSource
    assert set(all_sources()) == {*REGISTRY, "widgets"}


def test_the_package_imports_no_adapter_and_nothing_heavy() -> None:
    script = """
import sys, drctl.sources
print([name for name in sys.modules if name.startswith(("drctl.sources.", "paramiko", "pathspec"))])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
