"""What goes into the images that Mayfly builds itself, as plain values; nothing here acts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath

from mayfly.errors import Invalid, Missing
from mayfly.units import GIB, MIB, show_size

DISK_BYTES = 8 * GIB
"""Disk that the guest sees; it is sparse, so only what is written takes room on the host."""

SMALLEST_DISK = 1 * GIB
LARGEST_DISK = 2048 * GIB

BASE = (
    "ca-certificates",
    "e2fsprogs",
    "iproute2",
    "iputils-ping",
    "kmod",
    "less",
    "login",
    "mount",
    "netbase",
    "passwd",
    "procps",
    "tzdata",
    "udev",
    "vim-tiny",
    "xz-utils",
)

_LEFT_OUT = (
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
)
"""As in Debian's own container images: a third of the files, and nobody reads them in a job."""


# What debootstrap does, and so Debian's installer.
_MERGE_USR = (
    'for name in bin sbin lib lib32 lib64 libx32; do mkdir -p "$1/usr/$name"; '
    'ln -s "usr/$name" "$1/$name"; done'
)


# It bears the time at which it was made, in every file.
_SETTLE_INITRAMFS = (
    'chroot "$1" /bin/sh -ec \'cd $(mktemp -d); gzip -dc /initrd.img | cpio -id --quiet; '
    'find . -exec touch -hd @"$SOURCE_DATE_EPOCH" {} +; find . | LC_ALL=C sort | '
    'cpio -o -H newc -R 0:0 --reproducible --quiet | gzip -9n > "$(readlink -f /initrd.img)"; '
    # Whoever builds must read it, and in a user namespace it is somebody else's.
    'chmod 0644 "$(readlink -f /initrd.img)"; '
    'rm -rf "$PWD"\''
)

PINS = "etc/apt/preferences.d/mayfly-manifest"
"""Where it stands in the tree what apt must prefer, while the image is built."""
# Its directory has the time that it had without it.
_REMOVE_PINS = (
    f'cd "$1" && touch -r {PurePosixPath(PINS).parent} .mayfly-time && rm -f {PINS} && '
    f"touch -r .mayfly-time {PurePosixPath(PINS).parent} && rm .mayfly-time"
)


class Init(StrEnum):
    """The first process of the guest."""

    SYSTEMD = "systemd"
    SYSVINIT = "sysvinit"
    BUSYBOX = "busybox"
    """With nothing around it: for guests that only have to be up soon."""


class Family(StrEnum):
    """Whose packages an image is made of, and so which program installs them."""

    DEBIAN = "debian"
    UBUNTU = "ubuntu"
    """By mmdebstrap, too, but from another archive with another key."""
    RPM = "rpm"
    """By dnf."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """Where packages come from, while building and later in the guest."""

    main: str
    security: str

    def lines(self, suite: str, components: str = "main") -> tuple[str, ...]:
        """Give the lines of sources.list."""
        return (
            f"deb {self.main} {suite} {components}",
            f"deb {self.main} {suite}-updates {components}",
            f"deb {self.security} {suite}-security {components}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """Where packages of another distribution come from, and whose signature they must bear."""

    mirror: Mirror
    keyring: str
    """File with the public keys, where the distribution itself has it."""
    components: str = "main"
    repositories: tuple[str, ...] = ()
    """Of RPMs: what follows the mirror's address, one for each."""


_INIT_PACKAGES = {
    Init.SYSTEMD: ("systemd-sysv",),
    Init.SYSVINIT: ("sysvinit-core", "sysv-rc", "initscripts"),
    # The usual initramfs brings udev, which alone takes longer than all the rest.
    Init.BUSYBOX: ("busybox-static", "tiny-initramfs"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One image to build."""

    name: str
    suite: str
    os: str
    init: Init = Init.SYSTEMD
    kernel: str = "linux-image-cloud-amd64"
    base: tuple[str, ...] = BASE
    packages: tuple[str, ...] = ()
    """In addition to the base."""
    merge_usr: bool = False
    """Make /bin and the like links into /usr, where the suite's packages do not do so."""
    lean: bool = True
    """Without documentation and translations."""
    variant: str = "minbase"
    """What mmdebstrap begins with."""
    disk_bytes: int = DISK_BYTES
    family: Family = Family.DEBIAN
    archive: Archive | None = None
    """Of another distribution; None: the host's own Debian mirror."""

    def all_packages(self) -> tuple[str, ...]:
        """Give every package that is asked for; dependencies come by themselves."""
        first = _INIT_PACKAGES[self.init]
        return tuple(dict.fromkeys((self.kernel, *first, *self.base, *self.packages)))


# What every job may count on, as in the containers of these distributions.
_RPM_BASE = (
    "bash",
    "ca-certificates",
    "coreutils",
    "dnf",
    "findutils",
    "glibc-langpack-en",
    "grep",
    "iproute",
    "less",
    "procps-ng",
    "sed",
    "shadow-utils",
    "tar",
    "util-linux",
    "vim-minimal",
)


def _one(address: str) -> Mirror:
    return Mirror(main=address, security=address)


RECIPES = {
    recipe.name: recipe
    for recipe in (
        # Debian's support of 11 has ended, and its security archive no longer holds every package
        # that it lists: the kernel of the last point release is complete.
        Recipe(
            name="debian-11",
            suite="bullseye",
            os="debian 11",
            kernel="linux-image-cloud-amd64/bullseye",
            merge_usr=True,
        ),
        Recipe(name="debian-12", suite="bookworm", os="debian 12"),
        Recipe(name="debian-13", suite="trixie", os="debian 13"),
        Recipe(
            name="minimal",
            suite="bookworm",
            os="debian 12",
            init=Init.BUSYBOX,
            base=("mount",),
            variant="apt",
        ),
        Recipe(
            name="ubuntu-24.04",
            suite="noble",
            os="ubuntu 24.04",
            family=Family.UBUNTU,
            base=("ca-certificates", "iproute2", "less", "procps", "tzdata"),
            archive=Archive(
                mirror=Mirror(
                    main="http://archive.ubuntu.com/ubuntu",
                    security="http://security.ubuntu.com/ubuntu",
                ),
                keyring="/usr/share/keyrings/ubuntu-archive-keyring.gpg",
                components="main universe",
            ),
        ),
        Recipe(
            name="el9",
            suite="9",
            os="almalinux 9",
            family=Family.RPM,
            base=_RPM_BASE,
            archive=Archive(
                mirror=_one("https://repo.almalinux.org/almalinux/9"),
                keyring="/etc/pki/rpm-gpg/RPM-GPG-KEY-AlmaLinux-9",
                repositories=("BaseOS/x86_64/os", "AppStream/x86_64/os"),
            ),
        ),
        Recipe(
            name="fedora-42",
            suite="42",
            os="fedora 42",
            family=Family.RPM,
            base=_RPM_BASE,
            archive=Archive(
                mirror=_one("https://dl.fedoraproject.org/pub/fedora/linux"),
                keyring="/etc/pki/rpm-gpg/RPM-GPG-KEY-fedora-42-x86_64",
                repositories=(
                    "releases/42/Everything/x86_64/os",
                    "updates/42/Everything/x86_64",
                ),
            ),
        ),
    )
}


def find_recipe(name: str) -> Recipe:
    """Give the recipe of this name."""
    if name not in RECIPES:
        known = ", ".join(RECIPES)
        raise Missing(
            f"there is no recipe '{name}'",
            hint=f"recipes: {known}; any other system comes in by 'mayfly image import FILE'",
        )
    return RECIPES[name]


_PACKAGE = {
    Family.DEBIAN: r"[a-z0-9][a-z0-9+.-]+",
    Family.UBUNTU: r"[a-z0-9][a-z0-9+.-]+",
    Family.RPM: r"[A-Za-z0-9][A-Za-z0-9+._-]+",
}


def check_packages(packages: tuple[str, ...], family: Family = Family.DEBIAN) -> None:
    """Refuse what is no package name; apt and dnf would take some of it as an instruction."""
    for package in packages:
        if not re.fullmatch(_PACKAGE[family], package):
            kind = "an RPM package" if family is Family.RPM else "a Debian package"
            raise Invalid(f"'{package}' is not the name of {kind}")


def check_disk_bytes(disk_bytes: int) -> int:
    """Give the size of the disk, rounded up to whole MiB, or refuse it."""
    if not SMALLEST_DISK <= disk_bytes <= LARGEST_DISK:
        raise Invalid(
            f"a disk of {show_size(disk_bytes)} is not possible",
            hint=f"from {show_size(SMALLEST_DISK)} to {show_size(LARGEST_DISK)}",
        )
    return -(-disk_bytes // MIB) * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Workplace:
    """Where a build happens."""

    tree: Path
    """Directory that becomes the root of the guest."""
    layer: Path
    """Tar file with our own files."""
    as_root: bool
    """Else in a user namespace."""
    pins: Path | None = None
    """Tar file with what apt must prefer."""
    hooks: tuple[str, ...] = ()
    """Further options, for what is done when all packages are there."""


def mmdebstrap_argv(
    recipe: Recipe, mirror: Mirror, place: Workplace, *, apt_options: Mapping[str, str]
) -> list[str]:
    """Give the command that makes the root tree.

    Hooks run as shell text by mmdebstrap's own rules; ours hold no value that comes from outside.
    """
    argv = [
        "mmdebstrap",
        f"--mode={'root' if place.as_root else 'unshare'}",
        f"--variant={recipe.variant}",
        "--format=directory",
        "--architectures=amd64",
        f"--include={','.join(recipe.all_packages())}",
        # So that 'apt-get install' works in a machine without an update before it.
        "--skip=cleanup/apt/lists",
    ]
    argv += [f'--aptopt={name} "{value}"' for name, value in apt_options.items()]
    if recipe.lean:
        argv += [f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT]
        argv.append("--dpkgopt=path-include=/usr/share/doc/*/copyright")
    if recipe.merge_usr:
        argv.append(f"--setup-hook={_MERGE_USR}")
    if place.pins is not None:
        argv.append(f"--setup-hook=tar-in {place.pins} /")
    argv += [
        # Before the kernel is installed: its initramfs is made once, and with our settings.
        f"--essential-hook=tar-in {place.layer} /",
        *place.hooks,
        '--customize-hook=rm -f "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/etc/ssh/ssh_host_*',
    ]
    if place.pins is not None:
        argv.append(f"--customize-hook={_REMOVE_PINS}")
    if recipe.init is Init.BUSYBOX:
        argv.append(f"--customize-hook={_SETTLE_INITRAMFS}")
    if recipe.init is Init.SYSVINIT:
        argv.append('--customize-hook=chroot "$1" update-rc.d mayfly-agent defaults')
    return [*argv, recipe.suite, str(place.tree), *mirror.lines(recipe.suite)]


_MILESTONES = (
    ("running apt-get update", 0.02),
    ("downloading packages", 0.10),
    ("extracting archives", 0.30),
    ("installing essential", 0.40),
    ("installing remaining", 0.55),
    ("cleaning package lists", 0.98),
)


def milestone(line: str) -> float | None:
    """Give how far mmdebstrap is, as a fraction, when this line of its output says so."""
    for words, fraction in _MILESTONES:
        if line.startswith(f"I: {words}"):
            return fraction
    return None
