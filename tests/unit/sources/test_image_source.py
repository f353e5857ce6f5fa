"""Raw images: files and real loop devices, with a file system on them that is written to."""

from __future__ import annotations

import hashlib
import os
import pickle
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from drctl.ports import SwappedError
from drctl.sources.image import ImageOptions, ImageSource

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="loop devices and mounts need root")


def source(path: Path, block_size: int = 1 << 20) -> ImageSource:
    return ImageSource(ImageOptions(path=str(path), block_size=block_size))


def blocks(found: ImageSource) -> list[bytes]:
    """One hash per block, holes skipped in whole blocks as zeros."""
    size = found.block_size
    assert size is not None
    with found.open_root(found.roots[0]) as directory:
        (entry,) = directory.entries
        reader, buffer, hashes = directory.open(entry), memoryview(bytearray(size)), []
        for offset in range(0, entry.size, size):
            if reader.hole(offset) >= size:
                reader.skip(size)
                hashes.append(hashlib.sha256(bytes(size)).digest())
                continue
            filled = 0
            while filled < size and (count := reader.readinto(buffer[filled:])):
                filled += count
            hashes.append(hashlib.sha256(buffer[:filled]).digest())
        assert not reader.changed()
        reader.close()
    return hashes


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """An ext4 image of 64 MiB and the loop device it is attached to."""
    image = tmp_path / "disk.img"
    with image.open("wb") as made:
        made.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    done = subprocess.run(["losetup", "--find", "--show", image], check=True, capture_output=True, text=True)
    device = Path(done.stdout.strip())
    try:
        yield image, device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def test_an_image_file_is_one_entry_of_its_size_and_its_metadata_is_trusted(tmp_path: Path) -> None:
    path = tmp_path / "x.img"
    path.write_bytes(b"1" * 1_500_000)
    found = source(path)
    assert found.trusts_metadata
    with found.open_root(os.fsencode(path)) as directory:
        (entry,) = directory.entries
        assert (entry.name, entry.size, entry.inode) == (b"x.img", 1_500_000, path.stat().st_ino)
        assert stat.S_ISREG(entry.mode)
    with found.open_root(os.fsencode(tmp_path)) as directory:
        assert stat.S_ISDIR(directory.entries[0].mode)
    assert len(blocks(found)) == 2
    with pytest.raises(SwappedError):
        found.open_directory(os.fsencode(path))


def test_a_sparse_image_is_mostly_a_hole(tmp_path: Path) -> None:
    path = tmp_path / "x.img"
    with path.open("wb") as image:
        image.truncate(1 << 40)  # a terabyte that nobody stored
        image.seek(1 << 30)
        image.write(b"x")
    found = source(path)
    with found.open_root(found.roots[0]) as directory:
        reader = directory.open(directory.entries[0])
        assert reader.hole(0) == 1 << 30
        assert reader.hole((1 << 30) + (1 << 20)) == (1 << 40) - (1 << 30) - (1 << 20)
        reader.close()


def test_a_changed_byte_changes_one_block(tmp_path: Path) -> None:
    path = tmp_path / "x.img"
    path.write_bytes(os.urandom(5 << 20))
    before = blocks(source(path))
    with path.open("r+b") as image:
        image.seek((3 << 20) + 17)
        image.write(b"\0\1")
    after = blocks(source(path))
    assert [index for index in range(5) if before[index] != after[index]] == [3]


@needs_root
def test_a_block_device_is_read_whole_as_a_regular_file(disk: tuple[Path, Path]) -> None:
    image, device = disk
    found = source(device)
    assert not found.trusts_metadata
    with found.open_root(os.fsencode(device)) as directory:
        (entry,) = directory.entries
        assert entry.size == 64 << 20
        assert stat.S_ISREG(entry.mode)
        assert entry.rdev == 0
    assert blocks(found) == blocks(source(image))
    link = image.parent / "by-id"
    link.symlink_to(device)
    assert blocks(source(link)) == blocks(found)


@needs_root
def test_an_incremental_of_a_mounted_disk_sees_every_write_and_little_else(
    disk: tuple[Path, Path], tmp_path: Path
) -> None:
    image, device = disk
    mounted = tmp_path / "mnt"
    mounted.mkdir()
    subprocess.run(["mount", device, mounted], check=True)
    try:
        data = mounted / "data"
        data.write_bytes(b"old-content!" * 100_000)
        subprocess.run(["sync", "-f", mounted], check=True)
        first = blocks(source(device))
        with data.open("r+b") as written:  # in place: the same disk block as before
            written.write(b"NEW-CONTENT!")
            written.flush()
            os.fsync(written.fileno())
        subprocess.run(["sync", "-f", mounted], check=True)
        second = blocks(source(device))
        changed = [index for index in range(64) if first[index] != second[index]]
        assert 1 <= len(changed) <= 6, changed
        # file data as it lies on the disk, nothing stale (metadata may still be on its way there)
        where = image.read_bytes().index(b"NEW-CONTENT!") >> 20
        assert where in changed
        assert second[where] == blocks(source(image))[where]
    finally:
        subprocess.run(["umount", mounted], check=True)


@needs_root
def test_writes_to_a_device_during_the_read_are_flagged(disk: tuple[Path, Path]) -> None:
    _, device = disk
    found = source(device)
    with found.open_root(found.roots[0]) as directory:
        reader = directory.open(directory.entries[0])
        assert not reader.changed()
        with device.open("r+b") as written:
            written.seek(32 << 20)
            written.write(b"x")
            written.flush()
            os.fsync(written.fileno())
        assert reader.changed()
        reader.close()


@pytest.mark.parametrize("kind", ["fifo", "directory", "device", "file"])
def test_an_image_swapped_for_something_else_is_flagged_and_nothing_hangs(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.img"
    path.write_bytes(b"x")
    found = source(path)
    with found.open_root(found.roots[0]) as directory:
        path.rename(tmp_path / "away")
        match kind:
            case "fifo":
                os.mkfifo(path)
            case "directory":
                path.mkdir()
            case "device":
                path.symlink_to("/dev/zero")
            case "file":
                path.write_bytes(b"y")
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(SwappedError):
            directory.open(directory.entries[0])
        assert len(os.listdir("/proc/self/fd")) == before
    if kind != "file":
        with pytest.raises(SwappedError):
            found.open_root(found.roots[0])


@pytest.mark.parametrize("size", [0, 4096, 65537, 16 << 20, -(1 << 20)])
def test_a_block_size_out_of_bounds_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="block_size"):
        ImageOptions(path="/dev/sda", block_size=size)


def test_a_missing_image_is_a_file_not_found_and_the_source_travels(tmp_path: Path) -> None:
    found = pickle.loads(pickle.dumps(source(tmp_path / "none")))
    assert not found.trusts_metadata
    with pytest.raises(FileNotFoundError):
        found.open_root(found.roots[0])
