"""The disks that a machine could have: forms, file systems of the host, cache and aio modes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.client import BenchError
from mayfly.engine.argv import DISK_CACHES

MIB = 1 << 20
READ_MIB = 512
"""At the beginning of each disk: data, the same for all."""
RAW, BELOW = "data.raw", "data.qcow2"
"""What disks are made from: the same in two forms."""
LOOP_MIB = 6144
"""Size of a file system that is made for the bench; sparse."""
MAKERS = {
    "xfs": (("mkfs.xfs", "-q", "-m", "reflink=1"), "xfsprogs"),
    "btrfs": (("mkfs.btrfs", "-q"), "btrfs-progs"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """One disk to be measured."""

    key: str
    form: str
    """``overlay`` (qcow2 on a qcow2 below it), ``reflink`` or ``raw`` (a copy)."""
    where: str = "here"
    """``here``: the directory of the bench; ``xfs``, ``btrfs``: a file system of its own."""
    cache: str = "unsafe"
    aio: str = "threads"
    device: str = "virtio-blk-pci"

    @property
    def text(self) -> str:
        """Say what it is, for people."""
        form = {"overlay": "qcow2 overlay", "reflink": "reflink copy", "raw": "raw copy"}[self.form]
        device = {"virtio-blk-pci": "virtio-blk", "ide-hd": "AHCI (emulated)"}[self.device]
        where = "" if self.where == "here" else f" on {self.where}"
        return f"{device}, {form}{where}, cache {self.cache}, aio {self.aio}"


OURS = Disk(key="overlay_unsafe_threads", form="overlay")
DISKS = (
    OURS,
    Disk(key="overlay_unsafe_io_uring", form="overlay", aio="io_uring"),
    Disk(key="overlay_writeback_threads", form="overlay", cache="writeback"),
    Disk(key="overlay_writeback_io_uring", form="overlay", cache="writeback", aio="io_uring"),
    Disk(key="overlay_none_threads", form="overlay", cache="none"),
    Disk(key="overlay_none_io_uring", form="overlay", cache="none", aio="io_uring"),
    Disk(key="overlay_none_native", form="overlay", cache="none", aio="native"),
    Disk(key="raw_unsafe_threads", form="raw"),
    Disk(key="overlay_xfs", form="overlay", where="xfs"),
    Disk(key="reflink_xfs", form="reflink", where="xfs"),
    Disk(key="overlay_btrfs", form="overlay", where="btrfs"),
    Disk(key="reflink_btrfs", form="reflink", where="btrfs"),
    Disk(key="ahci_unsafe_threads", form="overlay", device="ide-hd"),
)


def make_sources(directory: Path, size_mib: int) -> None:
    """Make what disks are made from."""
    raw = directory / RAW
    with open(raw, "wb") as file:
        file.writelines(os.urandom(MIB) for _ in range(READ_MIB))
        file.truncate(size_mib * MIB)
    convert = ["qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2"]
    subprocess.run([*convert, str(raw), str(directory / BELOW)], check=True)


@contextlib.contextmanager
def file_system(kind: str, directory: Path) -> Iterator[Path]:
    """Give a mounted file system of its own in a file; gone at the end."""
    words, package = MAKERS[kind]
    if shutil.which(words[0]) is None:
        raise BenchError(f"no {words[0]}: apt-get install {package}")
    file, mount = directory / f"{kind}.img", directory / kind
    with open(file, "wb") as made:
        made.truncate(LOOP_MIB * MIB)
    subprocess.run([*words, str(file)], check=True, stdout=subprocess.DEVNULL)
    mount.mkdir()
    subprocess.run(["mount", "-o", "loop", str(file), str(mount)], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)


def make_disk(disk: Disk, sources: Path, place: Path) -> Path:
    """Make the file of a disk in ``place``; ``sources`` lies on the same file system."""
    file = place / f"{disk.key}.{'qcow2' if disk.form == 'overlay' else 'raw'}"
    if disk.form == "overlay":
        below = sources / BELOW
        words = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(below), "-F", "qcow2"]
    else:
        how = "always" if disk.form == "reflink" else "never"
        words = ["cp", f"--reflink={how}", "--sparse=auto", str(sources / RAW)]
    subprocess.run([*words, str(file)], check=True)
    return file


def disk_argv(disks: Sequence[tuple[Disk, Path]]) -> list[str]:
    """Give the part of a QEMU line that has these disks, each with its number as serial."""
    words: list[str] = []
    if any(disk.device == "ide-hd" for disk, _ in disks):
        words += ["-device", "ich9-ahci,id=ahci"]
    for number, (disk, file) in enumerate(disks):
        words += ["-blockdev", json.dumps(_node(f"bench{number}", disk, file))]
        bus = ",bus=ahci.0" if disk.device == "ide-hd" else ""
        words += ["-device", f"{disk.device},drive=bench{number},serial=bench{number}{bus}"]
    return words


def _node(name: str, disk: Disk, file: Path) -> dict[str, object]:
    cache = DISK_CACHES[disk.cache]
    storage = {"driver": "file", "filename": str(file), "aio": disk.aio, "cache": cache}
    node: dict[str, object] = {
        "driver": "qcow2" if disk.form == "overlay" else "raw",
        "node-name": name,
        "discard": "unmap",
        "cache": cache,
        "file": {**storage, "discard": "unmap"},
    }
    if disk.form == "overlay":
        # As in our machines, the mode is that of the layer that is written to.
        below = DISK_CACHES["unsafe"]
        data = {"driver": "file", "filename": str(file.with_name(BELOW)), "cache": below}
        node["backing"] = {"driver": "qcow2", "read-only": True, "cache": below, "file": data}
    return node


FIND = """
for block in /sys/block/*; do
    device=/dev/${block##*/}
    serial=$(cat $block/serial 2>/dev/null || udevadm info -q property $device |
        sed -n 's/^ID_SERIAL_SHORT=//p')
    [ "$serial" ] && echo "$serial $device"
done
true
"""
"""Prints serial and device of each disk in a guest."""


def devices_in(text: str) -> dict[int, str]:
    """Give the device in the guest of each disk, by its number."""
    pairs = [line.split() for line in text.splitlines()]
    return {
        int(pair[0].removeprefix("bench")): pair[1]
        for pair in pairs
        if len(pair) == 2 and pair[0].startswith("bench")
    }
