"""GRUB for BIOS machines, put between the partition table and the first partition.

``grub-install`` wants a mounted disk and root. What it would do is simple for a disk made by us:
boot.img's code goes into sector 0 and loads sector 1, where core.img begins; core.img's first
sector loads the sectors after it. Both numbers are the defaults of the two files, so nothing is
patched, but they are checked.
"""

from __future__ import annotations

import struct
from pathlib import Path

from mayfly.command import run
from mayfly.errors import Failed
from mayfly.images.build.disk import PARTITION_START, SECTOR, Layout, master_boot_record

GRUB_DIRECTORY = Path("/usr/lib/grub/i386-pc")
_MODULES = ("biosdisk", "part_msdos", "ext2", "normal", "linux", "serial", "terminal")
_KERNEL_SECTOR = 0x5C
PACKAGE = "grub-pc-bin"
_FILES = ("boot.img", "kernel.img")
_PACKAGES = "install the packages grub-pc-bin and grub-common"


def is_installed() -> bool:
    """Tell whether GRUB's own files for BIOS machines are here: package grub-pc-bin."""
    return all((GRUB_DIRECTORY / name).is_file() for name in _FILES)


def core_argv(target: Path) -> list[str]:
    """Give the command that makes core.img; it finds the rest on the disk's first partition."""
    return [
        "grub-mkimage",
        *("-O", "i386-pc", "-p", "(hd0,msdos1)/boot/grub", "-o", str(target)),
        *_MODULES,
    ]


def boot_sectors(layout: Layout, boot_img: bytes, core_img: bytes) -> bytes:
    """Make everything that stands before the first partition."""
    if len(boot_img) != SECTOR or _number(boot_img, _KERNEL_SECTOR, "<Q") != 1:
        raise Failed("GRUB's boot.img does not load sector 1", hint=_PACKAGES)
    start, count = _number(core_img, SECTOR - 12, "<Q"), _number(core_img, SECTOR - 4, "<H")
    rest = -(-len(core_img) // SECTOR) - 1
    if start != 2 or count < rest:
        raise Failed("GRUB's core.img does not load the sectors after it", hint=_PACKAGES)
    if SECTOR + len(core_img) > PARTITION_START:
        raise Failed(f"GRUB's core.img is {len(core_img)} bytes, too long for the gap")
    return master_boot_record(layout, boot_img) + core_img


def _number(data: bytes, offset: int, form: str) -> int:
    if len(data) < offset + struct.calcsize(form):
        raise Failed("GRUB's files are shorter than a sector", hint=_PACKAGES)
    (value,) = struct.unpack_from(form, data, offset)
    return int(value)


def install(disk: Path, layout: Layout, scratch: Path) -> None:
    """Write the partition table and GRUB onto a disk."""
    boot = GRUB_DIRECTORY / "boot.img"
    if not boot.exists():
        raise Failed(f"GRUB for BIOS machines is not installed: no {boot}", hint=_PACKAGES)
    core = scratch / "core.img"
    run(core_argv(core), timeout_s=60)
    sectors = boot_sectors(layout, boot.read_bytes(), core.read_bytes())
    with disk.open("r+b") as file:
        file.write(sectors)
