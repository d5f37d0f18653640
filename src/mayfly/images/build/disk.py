"""The layout of our disks: an MBR, GRUB's code after it, and one ext4 partition from 1 MiB on.

A disk with SYSLINUX has a FAT there, with the kernel, and the ext4 partition after it.

Everything is made in ordinary files: no loop device, no mount, so no root either.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from mayfly.units import MIB

SECTOR = 512
PARTITION_START = 1 * MIB
BOOT_CODE_BYTES = 440
LINUX = 0x83
FAT16 = 0x0E
BOOT_BYTES = 40 * MIB
"""Of the FAT: a kernel of Debian's and its initramfs twice."""

# Written out, since mke2fs's own choice grows with its version: the oldest guest kernel (5.10)
# and GRUB must be able to read what the newest host makes.
_FEATURES = (
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,"
    "sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The numbers of one disk."""

    disk_bytes: int
    disk_id: bytes
    """Four random bytes."""
    uuid: str
    """Of the root file system."""
    boot_bytes: int = 0
    """Of a FAT in front of it; 0: there is none."""

    @property
    def root_start(self) -> int:
        """Give where the partition with the root file system begins."""
        return PARTITION_START + self.boot_bytes

    @property
    def partition_bytes(self) -> int:
        """Give the size of that partition: all that is left."""
        return self.disk_bytes - self.root_start


def master_boot_record(layout: Layout, boot_code: bytes) -> bytes:
    """Make sector 0: boot code, disk id, one Linux partition, and the FAT if there is one.

    The root file system's is always the first entry; what is started from is marked.
    """
    code = boot_code[:BOOT_CODE_BYTES].ljust(BOOT_CODE_BYTES, b"\0")
    has_fat = layout.boot_bytes > 0
    table = _entry(LINUX, layout.root_start, layout.partition_bytes, bootable=not has_fat)
    if has_fat:
        table += _entry(FAT16, PARTITION_START, layout.boot_bytes, bootable=True)
    return code + layout.disk_id + b"\0\0" + table.ljust(4 * 16, b"\0") + b"\x55\xaa"


def _entry(kind: int, start: int, size: int, *, bootable: bool) -> bytes:
    # Addresses by cylinder, head and sector are long dead; fe ff ff says "beyond those".
    return struct.pack(
        "<B3sB3sII",
        0x80 if bootable else 0,
        b"\xfe\xff\xff",
        kind,
        b"\xfe\xff\xff",
        start // SECTOR,
        size // SECTOR,
    )


def mke2fs_argv(layout: Layout, tree: Path, disk: str) -> list[str]:
    """Give the command that makes the root file system inside the disk, from a tree."""
    # A seed that mke2fs draws itself would change the order of names in directories each time.
    # Lazy initialisation would have every first boot write the inode tables.
    options = {
        "offset": layout.root_start,
        "lazy_itable_init": 0,
        "lazy_journal_init": 0,
        "hash_seed": layout.uuid,
    }
    return [
        "mke2fs",
        *("-q", "-F", "-t", "ext4"),
        *("-O", _FEATURES),
        *("-U", layout.uuid),
        *("-b", "4096", "-I", "256", "-m", "1"),
        *("-J", "size=32"),
        *("-E", ",".join(f"{key}={value}" for key, value in options.items())),
        *("-d", str(tree)),
        disk,
        f"{layout.partition_bytes // 1024}k",
    ]
