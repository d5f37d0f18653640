"""Disks are cut so that what moved is found again, and read as a guest would."""

from __future__ import annotations

import os
import random
import shutil
import struct
from pathlib import Path

import pytest

from mayfly.errors import Invalid
from mayfly.images.chunks.content import content_of
from mayfly.images.chunks.cut import Cutter, pieces
from tests.unit.images.chunks.disks import BLOCK, blocks, disk_of, index_of, qcow2_of

needs_qemu = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")
FIXED = Cutter(blocks=8, fixed=True)
MOVING = Cutter(blocks=8)


def share_known(old: Path, new: Path, cutter: Cutter) -> float:
    known = {chunk.digest for chunk in index_of(old, cutter).chunks}
    index = index_of(new, cutter)
    size = sum(chunk.size for chunk in index.chunks if chunk.digest in known)
    return size / index.content_bytes


@pytest.mark.parametrize("cutter", [FIXED, MOVING], ids=lambda cutter: cutter.name)
def test_the_chunks_are_the_disk(tmp_path: Path, cutter: Cutter) -> None:
    file = tmp_path / "disk"
    data = disk_of(3, blocks(1, 700), 5, blocks(2, 3), 100, blocks(3, 1)) + b"tail"
    file.write_bytes(data)
    back = bytearray(len(data))
    with content_of(file) as content:
        for at, chunk in pieces(content, cutter):
            back[at : at + len(chunk)] = chunk
            assert len(chunk) <= cutter.most * BLOCK
    assert back == data
    index = index_of(file, cutter)
    assert index.content_bytes == 704 * BLOCK + 4
    assert index.disk_bytes == len(data)


def test_content_that_moved_by_blocks_is_found_again(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(blocks(1, 2000))
    new.write_bytes(blocks(2, 3) + blocks(1, 2000))
    assert share_known(old, new, FIXED) < 0.01
    assert share_known(old, new, MOVING) > 0.98


def test_a_change_costs_the_chunks_around_it(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    data = bytearray(blocks(1, 2000))
    old.write_bytes(data)
    for at in random.Random(5).sample(range(2000), 5):
        data[at * BLOCK : at * BLOCK + 10] = b"0123456789"
    new.write_bytes(data)
    assert share_known(old, new, MOVING) > 0.93
    assert share_known(old, new, FIXED) > 0.97


def test_an_empty_disk_has_no_chunks(tmp_path: Path) -> None:
    file = tmp_path / "disk"
    file.touch()
    os.truncate(file, 1 << 30)
    assert index_of(file).chunks == ()


@needs_qemu
@pytest.mark.parametrize("options", [(), ("-o", "cluster_size=4096"), ("-o", "cluster_size=2M")])
def test_a_qcow2_is_read_as_its_raw_disk(tmp_path: Path, options: tuple[str, ...]) -> None:
    raw = tmp_path / "disk.raw"
    raw.write_bytes(
        disk_of(40, blocks(1, 333), 600, blocks(2, 20), 2000, blocks(3, 1)) + b"x" * 512
    )
    made = qcow2_of(raw, *options)
    assert index_of(made).chunks == index_of(raw).chunks
    data, chance = raw.read_bytes(), random.Random(1)
    with content_of(made) as content:
        assert content.disk_bytes == len(data)
        for _ in range(100):
            at, size = chance.randrange(len(data)), chance.randrange(300_000)
            assert content.read(at, size) == data[at : at + size]


@needs_qemu
def test_another_qcow2_is_refused(tmp_path: Path) -> None:
    raw = tmp_path / "disk.raw"
    raw.write_bytes(blocks(1, 64))
    made = qcow2_of(raw)
    good = made.read_bytes()

    def refused(at: int, data: bytes) -> None:
        made.write_bytes(good[:at] + data + good[at + len(data) :])
        with pytest.raises(Invalid), content_of(made):
            pytest.fail("it was opened")

    refused(4, struct.pack(">I", 9))
    refused(8, struct.pack(">Q", 104))
    refused(20, struct.pack(">I", 40))
    refused(36, struct.pack(">I", 0))
    refused(36, struct.pack(">I", 0xFFFFFFFF))
    refused(40, struct.pack(">Q", 1 << 40))
    refused(72, struct.pack(">Q", 4))
    (l1,) = struct.unpack_from(">Q", good, 40)
    (l2,) = struct.unpack_from(">Q", good, l1)
    refused((l2 & ((1 << 56) - 1)), struct.pack(">Q", 1 << 50))
    refused((l2 & ((1 << 56) - 1)), struct.pack(">Q", 1 << 62))
    raw.write_bytes(b"words " * 100_000)
    made = qcow2_of(raw, "-c")
    with pytest.raises(Invalid, match="compressed"), content_of(made):
        pytest.fail("it was opened")
