"""Make Debian 12 the way a distribution makes its cloud image, with no trace of Mayfly in it.

Run as ``python -m tests.material.stock_cloud_image OUT.qcow2``. Packages, kernel options, disk
size and defaults follow Debian's *genericcloud* images: cloud-init with its default list of data
sources, openssh-server without host keys, systemd-resolved, an initramfs with every driver. What
differs: an MBR with GRUB for BIOS only, where Debian has a GPT with UEFI beside it.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from mayfly.images.build.builder import make_disk
from mayfly.images.build.layer import Item, grub_cfg
from mayfly.images.build.mirror import host_mirror
from mayfly.images.build.recipe import find_recipe
from mayfly.images.build.scratch import scratch
from mayfly.images.convert import convert
from mayfly.images.follow import Report, silent
from mayfly.units import GIB

STOCK = replace(
    find_recipe("debian-12"),
    name="stock-12",
    base=(
        "apparmor",
        "bash-completion",
        "ca-certificates",
        "chrony",
        "cloud-guest-utils",
        "cloud-init",
        "cloud-initramfs-growroot",
        "curl",
        "dbus",
        "e2fsprogs",
        "fdisk",
        "grub-pc-bin",
        "iproute2",
        "iputils-ping",
        "kmod",
        "less",
        "libnss-myhostname",
        "libpam-systemd",
        "locales",
        "login",
        "man-db",
        "mount",
        "nano",
        "netbase",
        "netplan.io",
        "openssh-client",
        "openssh-server",
        "passwd",
        "procps",
        "python3",
        "socat",
        "sudo",
        "systemd-resolved",
        "tzdata",
        "udev",
        "unattended-upgrades",
        "uuid-runtime",
        "vim-tiny",
        "wget",
    ),
    disk_bytes=2 * GIB,
    lean=False,
)

_OPTIONS = "console=tty0 console=ttyS0,115200 earlyprintk=ttyS0,115200 consoleblank=0"


def stock_items(uuid: str) -> tuple[Item, ...]:
    """Give the few files that Debian's own image has beyond its packages."""
    root = "ext4 rw,discard,errors=remount-ro,x-systemd.growfs"
    return (
        Item(path="etc/fstab", content=f"UUID={uuid} / {root} 0 1\n"),
        Item(path="boot/grub/grub.cfg", content=grub_cfg(f"root=UUID={uuid} ro {_OPTIONS}")),
        Item(path="etc/hostname", content="localhost\n"),
        Item(path="etc/hosts", content="127.0.0.1 localhost\n::1 localhost ip6-localhost\n"),
    )


def stock_cloud_image(target: Path, report: Report = silent) -> None:
    """Make the image as a qcow2 at ``target``."""
    with scratch() as place:
        disk = make_disk(STOCK, host_mirror(), place, items=stock_items, report=report)
        partial = target.with_name(f".{target.name}")
        convert(str(disk), "raw", partial, report=report)
        partial.rename(target)


if __name__ == "__main__":
    stock_cloud_image(Path(sys.argv[1]), lambda phase, fraction: print(phase, fraction, flush=True))
