"""The layout of our disks: an MBR, GRUB's code after it, and one ext4 partition from 1 MiB on.

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

    @property
    def partition_bytes(self) -> int:
        """Give the size of the one partition: all that is left."""
        return self.disk_bytes - PARTITION_START


def master_boot_record(layout: Layout, boot_code: bytes) -> bytes:
    """Make sector 0: boot code, disk id, one bootable Linux partition."""
    code = boot_code[:BOOT_CODE_BYTES].ljust(BOOT_CODE_BYTES, b"\0")
    # Addresses by cylinder, head and sector are long dead; fe ff ff says "beyond those".
    entry = struct.pack(
        "<B3sB3sII",
        0x80,
        b"\xfe\xff\xff",
        LINUX,
        b"\xfe\xff\xff",
        PARTITION_START // SECTOR,
        layout.partition_bytes // SECTOR,
    )
    return code + layout.disk_id + b"\0\0" + entry + bytes(3 * 16) + b"\x55\xaa"


def mke2fs_argv(layout: Layout, tree: Path, disk: str) -> list[str]:
    """Give the command that makes the root file system inside the disk, from a tree."""
    # A seed that mke2fs draws itself would change the order of names in directories each time.
    # Lazy initialisation would have every first boot write the inode tables.
    options = {
        "offset": PARTITION_START,
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
