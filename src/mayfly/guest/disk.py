"""Grows the root file system when the machine's disk is larger than the image's."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from typing import NamedTuple

from mayfly.guest.fields import Refused

SECTOR = 512
BLKGETSIZE64 = 0x80081272
BLKPG = 0x1269
BLKPG_RESIZE_PARTITION = 3
EXT4_IOC_RESIZE_FS = 0x40086610
XFS_IOC_FSGROWFSDATA = 0x4010586E
TABLE_AT = 446
GPT_TYPE = 0xEE
"""Type of the only entry in the table that stands in front of a GPT."""
TAIL = 34
"""Sectors at the end of a disk that a GPT keeps for its copy."""


class Partition(NamedTuple):
    """Where a file system lies, in sectors."""

    disk: str
    number: int
    start: int
    size: int


def grow_root() -> None:
    """Let partition and file system of / fill the disk, while mounted."""
    sort = file_system_of("/")
    if sort not in ("ext3", "ext4", "xfs"):
        raise Refused(f"do not know how to grow a root file system of type {sort}")
    device = os.stat("/").st_dev
    sysfs = f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"
    partition = find_partition(sysfs)
    size = _number(f"{sysfs}/size") if partition is None else _grow_partition(partition)
    _grow_file_system(sort, size * SECTOR)


def _grow_partition(partition: Partition) -> int:
    node = f"/dev/{partition.disk}"
    with open(node, "rb", buffering=0) as disk:
        size = _size(disk.fileno()) // SECTOR - partition.start - TAIL
        if size <= partition.size:
            return partition.size
        _resize_partition(disk.fileno(), partition, size)
        table = grown(disk.read(SECTOR), partition, size)
    if table is not None:
        with open(node, "r+b", buffering=0) as disk:
            disk.write(table)
    return size


def find_partition(sysfs: str) -> Partition | None:
    """Read what the kernel says of a block device; None when it is a whole disk."""
    if not os.path.exists(f"{sysfs}/partition"):
        return None
    disk = os.path.basename(os.path.dirname(os.path.realpath(sysfs)))
    numbers = (_number(f"{sysfs}/{name}") for name in ("partition", "start", "size"))
    return Partition(disk, *numbers)


def grown(table: bytes, partition: Partition, size: int) -> bytes | None:
    """Give the first sector of a disk with one partition resized; None if it is not to be changed.

    The kernel's own idea of the partition is what counts until the next boot; the table is
    for that boot. A GPT is left alone: its tools mend it then.
    """
    if len(table) < SECTOR or table[510:512] != b"\x55\xaa" or not 1 <= partition.number <= 4:
        return None
    at = TABLE_AT + 16 * (partition.number - 1)
    start, _ = struct.unpack_from("<II", table, at + 8)
    if table[TABLE_AT + 4] == GPT_TYPE or start != partition.start or size >= 1 << 32:
        return None
    return table[: at + 12] + struct.pack("<I", size) + table[at + 16 :]


def _resize_partition(disk: int, partition: Partition, size: int) -> None:
    place = struct.pack(
        "@qqi64s64s4x", partition.start * SECTOR, size * SECTOR, partition.number, b"", b""
    )
    data = ctypes.create_string_buffer(place, len(place))
    request = struct.pack("@iiiP", BLKPG_RESIZE_PARTITION, 0, len(place), ctypes.addressof(data))
    fcntl.ioctl(disk, BLKPG, request)


def _size(device: int) -> int:
    (size,) = struct.unpack("@Q", fcntl.ioctl(device, BLKGETSIZE64, bytes(8)))
    return int(size)


def _number(path: str) -> int:
    with open(path) as file:
        return int(file.read())


def _grow_file_system(sort: str, size: int) -> None:
    top = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        blocks = size // os.statvfs("/").f_frsize
        if sort == "xfs":
            fcntl.ioctl(top, XFS_IOC_FSGROWFSDATA, struct.pack("@QI4x", blocks, 25))
        else:
            fcntl.ioctl(top, EXT4_IOC_RESIZE_FS, struct.pack("@Q", blocks))
    finally:
        os.close(top)


def file_system_of(place: str, table: str = "/proc/self/mounts") -> str:
    """Give the type of the file system that is mounted on ``place``."""
    found = "unknown"
    with open(table) as file:
        for line in file:
            _, point, sort, *_ = line.split(" ")
            if point == place and sort != "rootfs":
                found = sort
    return found
