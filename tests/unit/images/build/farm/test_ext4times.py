"""Two file systems of one tree, made at different times, are the same to the last byte."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import subprocess
import time
from pathlib import Path

import pytest

from mayfly.errors import Failed
from mayfly.images.build.disk import PARTITION_START, Layout, mke2fs_argv
from mayfly.images.build.farm.ext4times import clamp_times, crc32c
from mayfly.units import MIB

EPOCH = 1_700_000_000
LAYOUT = Layout(disk_bytes=96 * MIB, disk_id=b"1234", uuid="01234567-89ab-4def-8123-456789abcdef")


def make_tree(top: Path) -> Path:
    (top / "etc").mkdir(parents=True)
    for number in range(300):
        (top / "etc" / f"file-{number}").write_text(str(number) * 50)
    (top / "old").write_text("older than the epoch")
    os.utime(top / "old", (EPOCH - 1000, EPOCH - 2000))
    (top / "link").symlink_to("old")
    os.link(top / "old", top / "hard")
    (top / "empty").mkdir()
    return top


def make_disk(path: Path, tree: Path) -> Path:
    with path.open("xb") as file:
        file.truncate(LAYOUT.disk_bytes)
    environment = {**os.environ, "E2FSPROGS_FAKE_TIME": str(EPOCH)}
    subprocess.run(mke2fs_argv(LAYOUT, tree, str(path)), check=True, env=environment)
    return path


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def debugfs(disk: Path, command: str) -> str:
    place = f"{disk}?offset={PARTITION_START}"
    argv = ["/sbin/debugfs", "-R", command, place]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def test_the_checksum_is_crc_32c() -> None:
    assert crc32c(0xFFFFFFFF, b"123456789") ^ 0xFFFFFFFF == 0xE3069283


def test_two_builds_of_one_tree_are_the_same(tmp_path: Path) -> None:
    one = make_tree(tmp_path / "one")
    first = make_disk(tmp_path / "first", one)
    # Whatever copies the tree gives it other times of change, and of reading.
    second_tree = tmp_path / "two"
    shutil.copytree(one, second_tree, symlinks=True)
    (second_tree / "hard").unlink()
    os.link(second_tree / "old", second_tree / "hard")
    os.utime(second_tree / "etc/file-7", (time.time() + 5000, time.time() + 5000))
    second = make_disk(tmp_path / "second", second_tree)
    assert digest(first) != digest(second)
    assert clamp_times(first, PARTITION_START, EPOCH) > 300
    clamp_times(second, PARTITION_START, EPOCH)
    assert digest(first) == digest(second)


def test_the_file_system_is_sound_and_times_are_as_wanted(tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "disk", make_tree(tmp_path / "tree"))
    clamp_times(disk, PARTITION_START, EPOCH)
    partition = tmp_path / "partition"
    with disk.open("rb") as source:
        source.seek(PARTITION_START)
        partition.write_bytes(source.read())
    check = subprocess.run(
        ["/sbin/e2fsck", "-fn", partition], check=False, capture_output=True, text=True
    )
    assert check.returncode == 0, check.stdout + check.stderr
    told = debugfs(disk, "stat /etc/file-1")
    stamp = f"0x{EPOCH:08x}"
    assert [told.count(f"{name}: {stamp}") for name in ("ctime", "atime", "mtime")] == [1, 1, 1]
    assert f"crtime: {stamp}" in told
    assert f"mtime: 0x{EPOCH - 2000:08x}" in debugfs(disk, "stat /old")
    assert debugfs(disk, "cat /etc/file-12") == "12" * 50


@pytest.mark.parametrize("content", [b"", bytes(4 * MIB), os.urandom(4 * MIB)])
def test_what_is_no_file_system_is_refused(tmp_path: Path, content: bytes) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(content)
    with pytest.raises(Failed, match="no ext4"):
        clamp_times(disk, PARTITION_START, EPOCH)


def test_a_file_system_without_checksums_is_refused(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    block = bytearray(1024)
    struct.pack_into("<H", block, 0x38, 0xEF53)
    disk.write_bytes(bytes(PARTITION_START + 1024) + block)
    with pytest.raises(Failed, match="no checksums"):
        clamp_times(disk, PARTITION_START, EPOCH)
