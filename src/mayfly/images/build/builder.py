"""Build an image from Debian's packages: root tree, file system, boot loader, catalogue.

Works as root, and as anyone who has user namespaces and a range of subordinate user ids.
"""

from __future__ import annotations

import os
import secrets
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mayfly.errors import Failed
from mayfly.images.build import grub, syslinux
from mayfly.images.build.disk import BOOT_BYTES, Layout, mke2fs_argv
from mayfly.images.build.farm.blueprint import Blueprint
from mayfly.images.build.farm.ext4times import clamp_times
from mayfly.images.build.farm.hearing import Hearing, heard_by_nobody
from mayfly.images.build.farm.manifest import epoch_of, manifest_of, preferences, write_manifest
from mayfly.images.build.farm.setup import hooks, pack_setup
from mayfly.images.build.layer import Item, image_items, kernel_options, pack
from mayfly.images.build.mirror import host_apt_options, host_mirror
from mayfly.images.build.needs import boot_loader, subordinate_ids
from mayfly.images.build.recipe import (
    PINS,
    Init,
    Mirror,
    Recipe,
    Workplace,
    check_disk_bytes,
    check_packages,
    mmdebstrap_argv,
)
from mayfly.images.build.scratch import Scratch, in_namespace, scratch
from mayfly.images.catalogue import Catalogue
from mayfly.images.catalogue.record import Facts
from mayfly.images.convert import convert
from mayfly.images.follow import Report, attend, failure, follow, silent
from mayfly.images.room import check_room
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
_TIMEOUT_S = 2 * 3600.0
_EPOCH = 1_577_836_800
"""What programs take for the time while packages are installed, where they can be told: 2020."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Addition:
    """What a disk gets besides the packages of its recipe and the files of ours."""

    digest: str = ""
    """Of all that decides what comes out; the disk's numbers are made of it. Empty: at random."""
    setup: bytes = b""
    """Tar file of what a recipe puts in, with the script that does the rest."""
    pins: bytes = b""
    """Tar file of what apt must prefer."""
    say: Callable[[str], None] = heard_by_nobody
    """Is told what scripts print."""


def build(
    wanted: Blueprint,
    catalogue: Catalogue,
    *,
    force: bool = False,
    keep: bool = False,
    report: Report = silent,
    say: Callable[[str], None] = heard_by_nobody,
) -> Image:
    """Build an image and admit it to the catalogue.

    ``force`` replaces one of the same name, ``keep`` leaves it beside as an older version. ``say``
    is told what the recipe's scripts print.
    """
    recipe = wanted.recipe
    check_packages(recipe.packages)
    check_host(recipe.init)
    mirror = wanted.mirror or host_mirror()
    work = f"build {wanted.title}"
    with catalogue.draft(wanted.title, work=work, force=force, keep=keep) as draft:
        check_room(draft.directory, _ROOM_IMAGE)
        with scratch() as place:
            check_room(place.top, _ROOM_TREE)
            items = partial(image_items, init=recipe.init)
            addition = addition_of(wanted, say)
            disk = make_disk(recipe, mirror, place, items=items, report=report, more=addition)
            _keep_kernel(place.tree, draft.disk.parent)
            convert(str(disk), "raw", draft.disk, report=report)
            report("manifest", None)
            mirrors = (mirror.main, mirror.security)
            manifest = manifest_of(wanted, place.tree, epoch_of(place.tree), mirrors)
            write_manifest(draft.disk.parent, manifest)
        report("hash", None)
        return draft.admit(_facts(wanted, mirror))


def _facts(wanted: Blueprint, mirror: Mirror) -> Facts:
    recipe = wanted.recipe
    name = f"{Path(wanted.source).name} ({recipe.name})" if wanted.source else recipe.name
    return Facts(
        os=recipe.os,
        source=f"recipe {name} from {mirror.main}",
        disk_bytes=recipe.disk_bytes,
        version=wanted.version,
        tags=wanted.tags,
    )


def addition_of(wanted: Blueprint, say: Callable[[str], None]) -> Addition:
    """Give what is put on top of a recipe of ours."""
    pins = Item(path=PINS, content=preferences(wanted.pins))
    return Addition(
        digest=wanted.digest(),
        setup=pack_setup(wanted) if wanted.has_setup else b"",
        pins=pack((pins,)) if wanted.pins else b"",
        say=say,
    )


def make_disk(
    recipe: Recipe,
    mirror: Mirror,
    place: Scratch,
    *,
    items: Callable[[str], tuple[Item, ...]],
    report: Report,
    more: Addition = Addition(),
) -> Path:
    """Make a raw disk that boots; ``items`` are put into it, given the file system's UUID."""
    layout = layout_of(recipe, more.digest)
    work = _workplace(place, pack(items(layout.uuid)), more)
    report("packages", 0.0)
    argv = mmdebstrap_argv(recipe, mirror, work, apt_options=host_apt_options())
    _run_mmdebstrap(argv, place, report, more.say)
    report("file system", None)
    disk = place.private / "disk.raw"
    epoch = epoch_of(place.tree)
    make_file_system(disk, layout, place, epoch)
    clamp_times(disk, layout.root_start, epoch)
    report("boot loader", None)
    if layout.boot_bytes:
        options = kernel_options(layout.uuid)
        syslinux.install(
            disk, layout, place.tree, scratch=place.private, options=options, epoch=epoch
        )
    else:
        grub.install(disk, layout, place.private)
    return disk


def layout_of(recipe: Recipe, digest: str) -> Layout:
    """Give the disk its numbers: the same ones for the same recipe."""
    seed = bytes.fromhex(digest) if digest else secrets.token_bytes(32)
    return Layout(
        disk_bytes=check_disk_bytes(recipe.disk_bytes),
        disk_id=seed[:4],
        uuid=str(uuid.UUID(bytes=seed[4:20], version=4)),
        boot_bytes=BOOT_BYTES if recipe.init is Init.BUSYBOX else 0,
    )


def _workplace(place: Scratch, layer: bytes, more: Addition) -> Workplace:
    """Write down for mmdebstrap what is put into the tree, and when."""
    files = {"layer.tar": layer, "setup.tar": more.setup, "pins.tar": more.pins}
    for name, content in files.items():
        if content:
            (place.private / name).write_bytes(content)
    setup = str(place.private / "setup.tar")
    return Workplace(
        tree=place.tree,
        layer=place.private / "layer.tar",
        as_root=os.geteuid() == 0,
        pins=place.private / "pins.tar" if more.pins else None,
        hooks=tuple(hooks(setup)) if more.setup else (),
    )


def _run_mmdebstrap(
    argv: list[str], place: Scratch, report: Report, say: Callable[[str], None]
) -> None:
    hear = Hearing(report, say)
    ended = attend(
        argv,
        timeout_s=_TIMEOUT_S,
        on_line=hear,
        env={**_environment(place), "SOURCE_DATE_EPOCH": str(_EPOCH)},
        pass_fds=(place.lock,),
    )
    if ended.code != 0:
        raise hear.failure() or failure(argv[0], ended)


def _keep_kernel(tree: Path, beside: Path) -> None:
    """Put the kernel beside the disk too: a host without one needs it to try whether KVM works."""
    for kernel in sorted(tree.glob("boot/vmlinuz-*"))[-1:]:
        shutil.copyfile(kernel, beside / "vmlinuz")


def _environment(place: Scratch) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key.lower().endswith("_proxy")}
    fixed = {"PATH": _PATH, "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"}
    return {**kept, **fixed, "TMPDIR": str(place.private)}


def make_file_system(disk: Path, layout: Layout, place: Scratch, epoch: int) -> None:
    """Make the root file system of the tree, inside an empty disk, as if at the time ``epoch``."""
    with disk.open("x+b") as file:
        file.truncate(layout.disk_bytes)
        # Open to all, in a directory that is open to its owner only: the process that gets the
        # descriptor runs under another uid, and nobody else can reach the file.
        disk.chmod(0o666)
        argv = mke2fs_argv(layout, place.tree, f"/proc/self/fd/{file.fileno()}")
        follow(
            in_namespace(argv),
            timeout_s=_TIMEOUT_S,
            # The second one is what mke2fs knew before it had the first.
            env={
                **_environment(place),
                "SOURCE_DATE_EPOCH": str(epoch),
                "E2FSPROGS_FAKE_TIME": str(epoch),
            },
            pass_fds=(file.fileno(), place.lock),
        )


def check_host(init: Init = Init.SYSTEMD) -> None:
    """Refuse to begin on a host that lacks a tool or a right that the build will need."""
    missing = {tool: TOOLS[tool] for tool in TOOLS if shutil.which(tool, path=_PATH) is None}
    loader = boot_loader()
    if init is Init.BUSYBOX:
        missing |= syslinux.missing(_PATH)
    elif not loader.ok:
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
