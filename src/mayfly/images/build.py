"""Build an image from Debian's packages: root tree, file system, boot loader, catalogue.

Works as root, and as anyone who has user namespaces and a range of subordinate user ids.
"""

from __future__ import annotations

import os
import secrets
import shutil
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

from mayfly.errors import Failed
from mayfly.images import grub
from mayfly.images.catalogue import Catalogue
from mayfly.images.convert import convert
from mayfly.images.disk import Layout, mke2fs_argv
from mayfly.images.follow import Report, follow, silent
from mayfly.images.layer import Item, image_items, pack
from mayfly.images.mirror import host_apt_options, host_mirror
from mayfly.images.needs import boot_loader, subordinate_ids
from mayfly.images.recipe import (
    Mirror,
    Recipe,
    Workplace,
    check_disk_bytes,
    check_packages,
    milestone,
    mmdebstrap_argv,
)
from mayfly.images.record import Facts
from mayfly.images.room import check_room
from mayfly.images.scratch import Scratch, in_namespace, scratch
from mayfly.model import Image
from mayfly.units import MIB

TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "qemu-img": "qemu-utils",
    "grub-mkimage": "grub-common",
    "setpriv": "util-linux",
}
"""Program to the Debian package that has it."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ROOM_TREE = 1200 * MIB
"""For packages, the unpacked tree and the file system made of it, for the base alone."""
_ROOM_IMAGE = 700 * MIB
_TIMEOUT_S = 3600.0


def build(
    recipe: Recipe,
    catalogue: Catalogue,
    *,
    name: str | None = None,
    mirror: Mirror | None = None,
    force: bool = False,
    report: Report = silent,
) -> Image:
    """Build an image and admit it to the catalogue, under the recipe's name or another one."""
    check_packages(recipe.packages)
    check_host()
    mirror = mirror or host_mirror()
    work = f"build {recipe.name}"
    with catalogue.draft(name or recipe.name, work=work, force=force) as draft:
        check_room(draft.directory, _ROOM_IMAGE)
        with scratch() as place:
            check_room(place.top, _ROOM_TREE)
            items = partial(image_items, init=recipe.init)
            disk = make_disk(recipe, mirror, place, items=items, report=report)
            _keep_kernel(place.tree, draft.disk.parent)
            convert(str(disk), "raw", draft.disk, report=report)
        report("hash", None)
        source = f"recipe {recipe.name} from {mirror.main}"
        return draft.admit(Facts(os=recipe.os, source=source, disk_bytes=recipe.disk_bytes))


def make_disk(
    recipe: Recipe,
    mirror: Mirror,
    place: Scratch,
    *,
    items: Callable[[str], tuple[Item, ...]],
    report: Report,
) -> Path:
    """Make a raw disk that boots; ``items`` are put into it, given the file system's UUID."""
    layout = Layout(
        disk_bytes=check_disk_bytes(recipe.disk_bytes),
        disk_id=secrets.token_bytes(4),
        uuid=str(uuid.uuid4()),
    )
    layer = place.private / "layer.tar"
    layer.write_bytes(pack(items(layout.uuid)))
    report("packages", 0.0)
    work = Workplace(tree=place.tree, layer=layer, as_root=os.geteuid() == 0)
    argv = mmdebstrap_argv(recipe, mirror, work, apt_options=host_apt_options())
    follow(
        argv,
        timeout_s=_TIMEOUT_S,
        on_line=partial(_tell, report),
        env=_environment(place),
        pass_fds=(place.lock,),
    )
    report("file system", None)
    disk = place.private / "disk.raw"
    make_file_system(disk, layout, place)
    report("boot loader", None)
    grub.install(disk, layout, place.private)
    return disk


def _keep_kernel(tree: Path, beside: Path) -> None:
    """Put the kernel beside the disk too: a host without one needs it to try whether KVM works."""
    for kernel in sorted(tree.glob("boot/vmlinuz-*"))[-1:]:
        shutil.copyfile(kernel, beside / "vmlinuz")


def _tell(report: Report, line: str) -> None:
    fraction = milestone(line)
    if fraction is not None:
        report("packages", fraction)


def _environment(place: Scratch) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key.lower().endswith("_proxy")}
    fixed = {"PATH": _PATH, "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"}
    return {**kept, **fixed, "TMPDIR": str(place.private)}


def make_file_system(disk: Path, layout: Layout, place: Scratch) -> None:
    """Make the root file system of the tree, inside an empty disk."""
    with disk.open("x+b") as file:
        file.truncate(layout.disk_bytes)
        # Open to all, in a directory that is open to its owner only: the process that gets the
        # descriptor runs under another uid, and nobody else can reach the file.
        disk.chmod(0o666)
        argv = mke2fs_argv(layout, place.tree, f"/proc/self/fd/{file.fileno()}")
        follow(
            in_namespace(argv),
            timeout_s=_TIMEOUT_S,
            env=_environment(place),
            pass_fds=(file.fileno(), place.lock),
        )


def check_host() -> None:
    """Refuse to begin on a host that lacks a tool or a right that the build will need."""
    missing = {tool: TOOLS[tool] for tool in TOOLS if shutil.which(tool, path=_PATH) is None}
    loader = boot_loader()
    if not loader.ok:
        missing[loader.name] = grub.PACKAGE
    if missing:
        raise Failed(
            f"cannot build an image without {', '.join(missing)}",
            hint=f"sudo apt install {' '.join(dict.fromkeys(missing.values()))}",
        )
    for need in subordinate_ids(_PATH):
        if not need.ok:
            raise Failed(
                f"cannot build an image as an ordinary user: {need.detail}",
                hint=f"sudo {need.mend}",
            )
