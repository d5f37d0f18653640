"""SYSLINUX for images that must be up soon: it reads a kernel in a fifth of GRUB's time.

GRUB asks the BIOS for a few sectors at a time; a kernel of 14 MB takes it 1.5 s under emulation,
SYSLINUX 0.3 s. It wants a FAT of its own, so kernel and initramfs are copied to one in front of
the root file system; that one stays the last, and can grow. ``syslinux`` and mtools work on plain
files: no mount and no root. See syslinux(1) and https://wiki.syslinux.org/wiki/index.php/Config
"""

from __future__ import annotations

import shutil
from pathlib import Path

from mayfly.command import run
from mayfly.errors import Failed
from mayfly.images.build.disk import PARTITION_START, SECTOR, Layout, master_boot_record

TOOLS = {"syslinux": "syslinux", "mcopy": "mtools", "mkfs.fat": "dosfstools"}
"""Program to the Debian package that has it."""
MBR = Path("/usr/lib/SYSLINUX/mbr.bin")
"""Starts the partition that is marked as bootable."""
NAMES = {"vmlinuz": "vmlinuz", "initrd.img": "initrd.img"}
"""File in the root of the tree to its name in the FAT."""
_TIMEOUT_S = 60.0


def config(kernel_options: str) -> str:
    """Give SYSLINUX's commands: no menu, no prompt, no wait."""
    return (
        "DEFAULT mayfly\n"
        "PROMPT 0\n"
        "LABEL mayfly\n"
        "  LINUX vmlinuz\n"
        "  INITRD initrd.img\n"
        f"  APPEND {kernel_options}\n"
    )


def fat_argv(layout: Layout, fat: Path) -> list[str]:
    """Give the command that makes the empty FAT, the same one each time."""
    return [
        "mkfs.fat",
        "--invariant",
        *("-F", "16", "-n", "MAYFLYBOOT"),
        *("-i", layout.disk_id.hex()),
        *("-h", str(PARTITION_START // SECTOR)),
        str(fat),
    ]


def install(
    disk: Path, layout: Layout, tree: Path, *, scratch: Path, options: str, epoch: int
) -> None:
    """Write the partition table, SYSLINUX and what it starts onto a disk.

    Raises ``Failed`` when a file of SYSLINUX's or of the kernel's is missing.
    """
    fat = scratch / "boot.fat"
    with fat.open("xb") as file:
        file.truncate(layout.boot_bytes)
    # mtools take times from it; without a configuration they ask for nothing.
    env = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "SOURCE_DATE_EPOCH": str(epoch),
        "MTOOLS_SKIP_CHECK": "1",
        "TMPDIR": str(scratch),
        "TZ": "UTC",
        "LC_ALL": "C.UTF-8",
    }
    run(fat_argv(layout, fat), timeout_s=_TIMEOUT_S, env=env)
    settings = scratch / "syslinux.cfg"
    settings.write_text(config(options))
    for source, name in (*_kernel(tree), (settings, settings.name)):
        run(["mcopy", "-i", str(fat), str(source), f"::{name}"], timeout_s=_TIMEOUT_S, env=env)
    run(["syslinux", "--install", str(fat)], timeout_s=_TIMEOUT_S, env=env)
    with disk.open("r+b") as target, fat.open("rb") as made:
        target.write(master_boot_record(layout, _boot_code()))
        target.seek(PARTITION_START)
        shutil.copyfileobj(made, target)
    fat.unlink()


def _kernel(tree: Path) -> list[tuple[Path, str]]:
    found = []
    for link, name in NAMES.items():
        try:
            # Debian's links are relative; one from / on must not lead to the host's own.
            target = (tree / link).readlink()
            source = tree / str(target).lstrip("/")
            if ".." in target.parts or source.is_symlink() or not source.is_file():
                raise FileNotFoundError(str(source))
        except OSError as error:
            raise Failed(f"the tree that was built has no /{link}: {error}") from error
        found.append((source, name))
    return found


def _boot_code() -> bytes:
    try:
        return MBR.read_bytes()
    except OSError as error:
        raise Failed(
            f"SYSLINUX is not installed: cannot read {MBR}: {error.strerror}",
            hint="install the package syslinux",
        ) from error


def missing(path: str) -> dict[str, str]:
    """Give what is not here of what it takes, with the package of each."""
    lacking = {tool: TOOLS[tool] for tool in TOOLS if shutil.which(tool, path=path) is None}
    if not MBR.is_file():
        lacking[MBR.name] = TOOLS["syslinux"]
    return lacking
