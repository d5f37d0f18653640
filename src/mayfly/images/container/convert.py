"""Make a machine image of a container image, and admit it to the catalogue.

Its files are written into an ext4 of ours by a confined process, with our kernel and first process
as one more layer. The result boots by itself, as every image does.
"""

from __future__ import annotations

import re
import secrets
import shutil
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mayfly.errors import Failed
from mayfly.images.build import grub
from mayfly.images.build.builder import check_host, make_file_system
from mayfly.images.build.disk import PARTITION_START, Layout
from mayfly.images.build.farm.manifest import write_manifest
from mayfly.images.build.layer import Item, grub_cfg, pack
from mayfly.images.build.mirror import host_mirror
from mayfly.images.build.recipe import DISK_BYTES, check_disk_bytes
from mayfly.images.build.scratch import Scratch, scratch
from mayfly.images.catalogue import Catalogue, Existing
from mayfly.images.catalogue.record import Facts
from mayfly.images.confine import Bounds, confined
from mayfly.images.container.assemble import Plan, assemble
from mayfly.images.container.contents import Contents
from mayfly.images.container.initramfs import ENVIRON
from mayfly.images.container.kernel import Kit, kernel_kit
from mayfly.images.container.packed import Part
from mayfly.images.container.said import write_said
from mayfly.images.convert import convert
from mayfly.images.follow import Report, silent
from mayfly.images.room import check_room
from mayfly.model import Image
from mayfly.units import MIB

CONVERSION = 1
"""Counts up when the same container image would become another disk."""
# Programs linked with a C library older than 2.14 call the kernel through a page at a fixed address
# (time, gettimeofday), which today's kernels of Debian leave out: without it they crash.
_OPTIONS = "rw console=ttyS0,115200 quiet net.ifnames=0 vsyscall=emulate"
_ROOM_IMAGE = 300 * MIB

Opener = Callable[[Path], AbstractContextManager[Contents]]
"""Opens a container image; it gets a private directory to work in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the image is to be."""

    name: str
    os: str = ""
    """Empty: as its os-release says."""
    disk_bytes: int = DISK_BYTES
    existing: Existing = Existing.REFUSE
    version: str = ""
    """Empty: the time at which it is admitted."""
    tags: tuple[str, ...] = ("container",)


def import_container(
    opener: Opener,
    wish: Wish,
    catalogue: Catalogue,
    *,
    cache: Path,
    report: Report = silent,
) -> Image:
    """Convert a container image and admit it."""
    check_tools()
    with catalogue.draft(
        wish.name,
        work=f"import {wish.name}",
        force=wish.existing is Existing.REPLACE,
        keep=wish.existing is Existing.KEEP,
    ) as draft:
        check_room(draft.directory, _ROOM_IMAGE)
        with scratch() as place, opener(place.private) as contents:
            kit = kernel_kit(cache, host_mirror(), report=report)
            disk, found = _make_disk(contents, kit, wish, place, report=report)
            shutil.copyfile(kit.kernel, draft.disk.parent / "vmlinuz")
            convert(str(disk), "raw", draft.disk, report=report)
            if contents.config is not None:
                write_said(draft.disk.parent, contents.config)
            if contents.manifest is not None:
                write_manifest(draft.disk.parent, contents.manifest)
            report("hash", None)
            return draft.admit(_facts(contents, kit, wish, found))


def check_tools() -> None:
    """Refuse to begin on a host that lacks what it takes."""
    check_host()
    if shutil.which("depmod", path="/usr/sbin:/sbin:/usr/bin:/bin") is None:
        raise Failed("cannot make an image without depmod", hint="sudo apt install kmod")


def _make_disk(
    contents: Contents, kit: Kit, wish: Wish, place: Scratch, *, report: Report
) -> tuple[Path, dict[str, Any]]:
    layout = Layout(
        disk_bytes=check_disk_bytes(wish.disk_bytes),
        disk_id=secrets.token_bytes(4),
        uuid=str(uuid.uuid4()),
    )
    report("file system", None)
    disk = place.private / "disk.raw"
    make_file_system(disk, layout, place, int(time.time()))
    ours = place.private / "ours.tar"
    env = contents.config.env if contents.config else ()
    ours.write_bytes(pack(own_items(layout.uuid, kit.version, env)))
    with disk.open("r+b") as target, kit.layer.open("rb") as kernel, ours.open("rb") as small:
        own = [Part(fd=file.fileno(), offset=0, size=_size(file.name)) for file in (kernel, small)]
        plan = Plan(
            layers=(*contents.layers, *own),
            own=len(own),
            disk=f"/proc/self/fd/{target.fileno()}",
            offset=PARTITION_START,
            room_bytes=_room(layout),
        )
        found = confined(
            partial(assemble, plan),
            what=contents.source,
            keep=[target.fileno(), *(part.fd for part in plan.layers)],
            bounds=Bounds(file_bytes=layout.disk_bytes),
            report=report,
        )
    report("boot loader", None)
    grub.install(disk, layout, place.private)
    return disk, found


def own_items(root_uuid: str, version: str, env: tuple[str, ...]) -> tuple[Item, ...]:
    """Give what an image gets besides the kernel: places to mount things, and how it boots."""
    config = grub_cfg(
        f"root=UUID={root_uuid} {_OPTIONS}",
        kernel=f"/boot/vmlinuz-{version}",
        initrd=f"/boot/initrd.img-{version}",
    )
    folders = (("proc/", 0o555), ("sys/", 0o555), ("dev/", 0o755), ("run/", 0o755))
    return (
        *(Item(path=path, mode=mode) for path, mode in folders),
        Item(path="tmp/", mode=0o1777),
        Item(path="etc/", mode=0o755),
        Item(path="boot/grub/", mode=0o755),
        Item(path="boot/grub/grub.cfg", content=config),
        Item(path=ENVIRON, content="".join(f"{entry}\0" for entry in env)),
    )


def _room(layout: Layout) -> int:
    """Give what files may take: without inode tables, journal and what root keeps back."""
    return layout.partition_bytes * 96 // 100 - 48 * MIB


def _size(path: str) -> int:
    return Path(path).stat().st_size


def _facts(contents: Contents, kit: Kit, wish: Wish, found: dict[str, Any]) -> Facts:
    return Facts(
        os=wish.os or os_name(str(found.get("os_release"))),
        source=contents.source,
        disk_bytes=check_disk_bytes(wish.disk_bytes),
        endorsed_sha512=contents.endorsed_sha512,
        derived=(
            f"container conversion {CONVERSION}: {len(contents.layers)} layers put together",
            f"kernel {kit.version} of Debian's linux-image-cloud-amd64, with its modules",
        ),
        version=wish.version,
        tags=wish.tags,
    )


def os_name(release: str) -> str:
    """Give distribution and version of an os-release, such as ``debian 12``."""
    words = []
    for key in ("ID", "VERSION_ID"):
        line = rf"^{key}=[\"']?([A-Za-z0-9._-]{{1,40}})[\"']?\s*$"
        found = re.search(line, release, re.MULTILINE)
        words += [found[1]] if found else []
    return " ".join(words) or "linux"
