"""Take the time of the build out of an ext4 file system that was just made from a tree.

mke2fs copies the times of the tree's inodes, and those of a last change cannot be set by anybody.
So they are written over in the inode tables, and each inode's checksum is computed anew. Nothing
but the layout that ``disk.py`` asks mke2fs for is understood here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mayfly.errors import Failed

_SUPERBLOCK = 1024
_MAGIC = 0xEF53
_METADATA_CSUM = 0x400
_INODE_UNINIT = 0x1
_ATIME, _CTIME, _MTIME, _GENERATION = 0x08, 0x0C, 0x10, 0x64
_CSUM_LOW, _EXTRA_SIZE, _CSUM_HIGH = 0x7C, 0x80, 0x82
_CTIME_EXTRA, _MTIME_EXTRA, _ATIME_EXTRA, _CRTIME, _CRTIME_EXTRA = 0x84, 0x88, 0x8C, 0x90, 0x94
_EXTRA_LEAST = _CRTIME_EXTRA + 4 - 0x80
_POLYNOMIAL = 0x82F63B78
"""CRC-32C, as ext4 has it: bits in reverse, and not inverted at the end."""


def _table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)  # noqa: PLW2901
        table.append(value)
    return tuple(table)


_CRC = _table()


def crc32c(crc: int, data: bytes) -> int:
    """Go on with a checksum over more bytes."""
    table = _CRC
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc


@dataclass(frozen=True, slots=True, kw_only=True)
class _Geometry:
    block_bytes: int
    inode_bytes: int
    inodes_per_group: int
    groups: int
    descriptor_bytes: int
    seed: int


def clamp_times(disk: Path, start: int, epoch: int) -> int:
    """Let no time in the file system at ``start`` be later than ``epoch``; gives the inodes.

    The time of the last change to a file's content stays when it is earlier; all others are set.
    """
    changed = 0
    with disk.open("r+b") as file:
        geometry = _geometry(file, start)
        for first, place, count in _tables(file, start, geometry):
            size = geometry.inode_bytes
            file.seek(place)
            table = bytearray(file.read(count * size))
            for at in range(count):
                inode = memoryview(table)[at * size : (at + 1) * size]
                if any(inode[:_GENERATION]):
                    _set_times(inode, epoch)
                    _sign(inode, first + at, geometry.seed)
                    changed += 1
            file.seek(place)
            file.write(table)
    return changed


def _set_times(inode: memoryview, epoch: int) -> None:
    # Those that are the file system's own have no room for more than seconds.
    wide = _number(inode, "<H", _EXTRA_SIZE) >= _EXTRA_LEAST
    mtime, extra = _number(inode, "<I", _MTIME), 0
    if wide:
        extra = _number(inode, "<I", _MTIME_EXTRA)
    if mtime > epoch or extra & 3:  # the two bits stand for times after 2038
        mtime, extra = epoch, 0
    for place, value in (
        (_ATIME, mtime),
        (_ATIME_EXTRA, extra),
        (_MTIME, mtime),
        (_MTIME_EXTRA, extra),
        (_CTIME, epoch),
        (_CTIME_EXTRA, 0),
        (_CRTIME, epoch),
        (_CRTIME_EXTRA, 0),
    ):
        if wide or place < _EXTRA_SIZE:
            struct.pack_into("<I", inode, place, value)


def _sign(inode: memoryview, number: int, seed: int) -> None:
    whole = _number(inode, "<H", _EXTRA_SIZE) >= _CSUM_HIGH + 2 - _EXTRA_SIZE
    for place in (_CSUM_LOW, _CSUM_HIGH)[: 1 + whole]:
        struct.pack_into("<H", inode, place, 0)
    crc = crc32c(seed, struct.pack("<I", number))
    crc = crc32c(crc, bytes(inode[_GENERATION : _GENERATION + 4]))
    crc = crc32c(crc, bytes(inode))
    struct.pack_into("<H", inode, _CSUM_LOW, crc & 0xFFFF)
    if whole:
        struct.pack_into("<H", inode, _CSUM_HIGH, crc >> 16)


def _geometry(file: BinaryIO, start: int) -> _Geometry:
    file.seek(start + _SUPERBLOCK)
    block = file.read(1024)
    if len(block) < 1024 or _number(block, "<H", 0x38) != _MAGIC:
        raise Failed("there is no ext4 file system where mke2fs should have made one")
    if not _number(block, "<I", 0x64) & _METADATA_CSUM:
        raise Failed("the file system that mke2fs made has no checksums of inodes")
    inodes, per_group = _number(block, "<I", 0x00), _number(block, "<I", 0x28)
    return _Geometry(
        block_bytes=1024 << _number(block, "<I", 0x18),
        inode_bytes=_number(block, "<H", 0x58),
        inodes_per_group=per_group,
        groups=-(-inodes // per_group),
        descriptor_bytes=_number(block, "<H", 0xFE) or 32,
        seed=crc32c(0xFFFFFFFF, block[0x68:0x78]),
    )


def _tables(file: BinaryIO, start: int, geometry: _Geometry) -> Iterator[tuple[int, int, int]]:
    """Give of each group's inode table the first number, the place, and how many are in use."""
    file.seek(start + max(geometry.block_bytes, 2 * _SUPERBLOCK))
    descriptors = file.read(geometry.groups * geometry.descriptor_bytes)
    for group in range(geometry.groups):
        at = group * geometry.descriptor_bytes
        wide = geometry.descriptor_bytes >= 64
        block = _number(descriptors, "<I", at + 0x08)
        unused = _number(descriptors, "<H", at + 0x1C)
        if wide:
            block |= _number(descriptors, "<I", at + 0x28) << 32
            unused |= _number(descriptors, "<H", at + 0x32) << 16
        if _number(descriptors, "<H", at + 0x12) & _INODE_UNINIT:
            continue
        count = geometry.inodes_per_group - unused
        yield group * geometry.inodes_per_group + 1, start + block * geometry.block_bytes, count


def _number(data: bytes | memoryview, form: str, offset: int) -> int:
    (value,) = struct.unpack_from(form, data, offset)
    return int(value)
