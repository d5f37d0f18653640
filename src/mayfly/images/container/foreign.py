"""Images of other distributions: their own builder installs the packages, we do the rest.

mmdebstrap (Ubuntu) or dnf (RPMs) fills a tree, the recipe's users, files and scripts are added, and
the tree becomes an image as a container image does: with our kernel, and no services. No builder is
told to pass over a signature.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from mayfly.command import run
from mayfly.errors import Failed, Invalid, MayflyError, Missing, Unavailable, Untrusted
from mayfly.images.build.farm.blueprint import Blueprint, Pinned
from mayfly.images.build.farm.hearing import Hearing, heard_by_nobody
from mayfly.images.build.farm.manifest import Manifest, builders, epoch_of, installed
from mayfly.images.build.farm.setup import pack_setup
from mayfly.images.build.mirror import host_apt_options
from mayfly.images.build.recipe import Archive, Family, Mirror, check_packages
from mayfly.images.build.scratch import Scratch, in_namespace, scratch
from mayfly.images.catalogue import Catalogue, Existing
from mayfly.images.container.contents import Contents
from mayfly.images.container.convert import Wish, import_container
from mayfly.images.container.packed import Part
from mayfly.images.follow import Ended, Report, attend, failure, silent
from mayfly.images.room import check_room
from mayfly.model import Image
from mayfly.units import MIB

BUILDERS = {Family.UBUNTU: ("mmdebstrap",), Family.RPM: ("dnf", "rpm")}
"""Programs of each family, which are the names of their Debian packages, too."""
_BAD_SIGNATURE = ("GPG check FAILED", "NO_PUBKEY", "is not signed", "BADSIG", "EXPKEYSIG")
_NOT_THERE = (
    "Failed to download metadata",
    "Failed to fetch",
    "Could not resolve",
    "does not have a Release file",
    "No more mirrors to try",
)
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TIMEOUT_S = 2 * 3600.0
_ROOM_TREE = 1500 * MIB
# In the tree, with nothing of a recipe in the text.
_SETUP = 'tar -C "$1" -xf "$2" && chroot "$1" /bin/sh /.mayfly/run && rm -rf "$1/.mayfly"'
_QUERY = "%{NAME}\\t%|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}\\t%{ARCH}\\t%{SHA256HEADER}\\n"


def build_foreign(
    wanted: Blueprint,
    catalogue: Catalogue,
    *,
    cache: Path,
    existing: Existing = Existing.REFUSE,
    report: Report = silent,
    say: Callable[[str], None] = heard_by_nobody,
) -> Image:
    """Build an image of another distribution and admit it to the catalogue.

    Raises ``Failed`` without the builder, ``Missing`` without the distribution's keys.
    """
    recipe = wanted.recipe
    check_packages(recipe.packages, recipe.family)
    if wanted.pins:
        raise Invalid(f"a manifest has no meaning with base '{recipe.name}'")
    archive = archive_of(wanted)
    check_builder(recipe.family)
    wish = Wish(
        name=wanted.title,
        os=recipe.os,
        disk_bytes=recipe.disk_bytes,
        existing=existing,
        version=wanted.version,
        tags=wanted.tags,
    )
    opener = partial(_opened, wanted, archive, report=report, say=say)
    return import_container(opener, wish, catalogue, cache=cache, report=report)


def archive_of(wanted: Blueprint) -> Archive:
    """Give where packages come from, and the keys, which must be there."""
    archive = wanted.recipe.archive
    if archive is None:
        raise Invalid(f"base '{wanted.recipe.name}' is Debian's own")
    keyring = Path(wanted.keyring or archive.keyring).absolute()
    if not keyring.is_file():
        raise Missing(
            f"there is no file {keyring} with the keys that sign the packages of "
            f"{wanted.recipe.os}",
            hint="get it from the distribution, compare its fingerprint with what is published, "
            "and name it by 'keyring' in the recipe or --keyring",
        )
    return replace(archive, keyring=str(keyring), mirror=wanted.mirror or archive.mirror)


def check_builder(family: Family) -> None:
    """Refuse to begin on a host that lacks the program which installs the packages."""
    missing = [each for each in BUILDERS[family] if shutil.which(each, path=_PATH) is None]
    if missing:
        raise Failed(
            f"cannot build an image of this distribution without {', '.join(missing)}",
            hint=f"sudo apt install {' '.join(missing)}; or make the disk elsewhere and bring it "
            "in by 'mayfly image import'",
        )


@contextmanager
def _opened(
    wanted: Blueprint,
    archive: Archive,
    _private: Path,
    *,
    report: Report,
    say: Callable[[str], None],
) -> Iterator[Contents]:
    """Build the tree, and give it as the one layer of a container image."""
    with scratch() as place:
        check_room(place.top, _ROOM_TREE)
        report("packages", None)
        archive = replace(archive, keyring=str(_public_copy(Path(archive.keyring), place)))
        hear = Hearing(report, say)
        _FILL[wanted.recipe.family](wanted, archive, place, hear)
        if wanted.has_setup:
            _set_up(wanted, place, hear)
        manifest = _manifest(wanted, archive.mirror, place)
        with (place.private / "tree.tar").open("x+b") as tar:
            # As with the disk: the process that writes it may run under another uid.
            os.fchmod(tar.fileno(), 0o666)
            argv = ["tar", "-C", str(place.tree), "-c", "--format=pax", "--sort=name", "--xattrs"]
            argv += ["--numeric-owner", "-f", f"/proc/self/fd/{tar.fileno()}", "."]
            _run(argv, place, Hearing(report, say), tar.fileno())
            part = Part(fd=tar.fileno(), offset=0, size=os.fstat(tar.fileno()).st_size)
            source = f"recipe {wanted.recipe.name} from {archive.mirror.main}"
            yield Contents(layers=(part,), config=None, source=source, manifest=manifest)


def _public_copy(keyring: Path, place: Scratch) -> Path:
    """Copy the keys to where apt's own user and a namespace's root can read them."""
    copy = place.top / f"keyring{keyring.suffix}"
    shutil.copyfile(keyring, copy)
    copy.chmod(0o644)
    return copy


def _run(
    argv: list[str], place: Scratch, hear: Hearing, *fds: int, archive: Archive | None = None
) -> None:
    """Run something as the owner of the tree's files."""
    ended = attend(
        in_namespace(argv),
        timeout_s=_TIMEOUT_S,
        on_line=hear,
        env=_environment(place),
        pass_fds=(place.lock, *fds),
    )
    if ended.code != 0:
        raise hear.failure() or failed(argv[0], ended, archive)


def failed(program: str, ended: Ended, archive: Archive | None) -> MayflyError:
    """Give the error for a bad end: what a builder says of archives names no way out."""
    error = failure(program, ended)
    said = "\n".join(ended.lines)
    if archive is None or not isinstance(error, Failed):
        return error
    if any(words in said for words in _BAD_SIGNATURE):
        return Untrusted(
            f"what {archive.mirror.main} has is not signed with one of the keys that were given: "
            f"{error.message}",
            hint="take the distribution's own mirror and keys; compare their fingerprints",
        )
    if any(words in said for words in _NOT_THERE):
        return Unavailable(
            f"cannot get packages from {archive.mirror.main}: {error.message}",
            hint="name a mirror that can be reached by 'mirror' in the recipe or --mirror",
        )
    return error


def _environment(place: Scratch) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key.lower().endswith("_proxy")}
    fixed = {"PATH": _PATH, "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"}
    return {**kept, **fixed, "TMPDIR": str(place.private)}


def _set_up(wanted: Blueprint, place: Scratch, hear: Hearing) -> None:
    """Put users, files and scripts of the recipe in."""
    setup = place.top / "setup.tar"
    setup.write_bytes(pack_setup(wanted))
    setup.chmod(0o644)
    _run(["sh", "-c", _SETUP, "sh", str(place.tree), str(setup)], place, hear)


# --- Ubuntu --------------------------------------------------------------------------------------


def mmdebstrap_argv(wanted: Blueprint, archive: Archive, place: Scratch) -> list[str]:
    """Give the command that makes a tree of packages of Debian's kind."""
    recipe = wanted.recipe
    return [
        "mmdebstrap",
        f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
        "--variant=minbase",
        "--format=directory",
        "--architectures=amd64",
        f"--include={','.join((*recipe.base, *recipe.packages))}",
        f"--keyring={archive.keyring}",
        "--skip=cleanup/apt/lists",
        *(f'--aptopt={name} "{value}"' for name, value in host_apt_options().items()),
        recipe.suite,
        str(place.tree),
        *archive.mirror.lines(recipe.suite, archive.components),
    ]


def _fill_by_mmdebstrap(wanted: Blueprint, archive: Archive, place: Scratch, hear: Hearing) -> None:
    # It makes its own namespace.
    argv = mmdebstrap_argv(wanted, archive, place)
    ended = attend(
        argv,
        timeout_s=_TIMEOUT_S,
        on_line=hear,
        env=_environment(place),
        pass_fds=(place.lock,),
    )
    if ended.code != 0:
        raise hear.failure() or failed(argv[0], ended, archive)


# --- RPMs ----------------------------------------------------------------------------------------


def dnf_config(archive: Archive) -> str:
    """Give dnf's settings: these repositories and no others, and every package signed."""
    main = (
        "[main]\n"
        "gpgcheck=1\n"
        "localpkg_gpgcheck=1\n"
        "plugins=0\n"
        "install_weak_deps=0\n"
        "tsflags=nodocs\n"
        "reposdir=/nonexistent\n"
        "varsdir=/nonexistent\n"
        "skip_if_unavailable=0\n"
        "retries=3\n"
    )
    for number, repository in enumerate(archive.repositories, start=1):
        main += (
            f"[mayfly-{number}]\n"
            f"name={repository}\n"
            f"baseurl={archive.mirror.main}/{repository}\n"
            f"gpgkey={Path(archive.keyring).as_uri()}\n"
        )
    return main


def dnf_argv(wanted: Blueprint, config: Path, place: Scratch) -> list[str]:
    """Give the command that makes a tree of RPMs."""
    recipe = wanted.recipe
    return [
        "dnf",
        f"--config={config}",
        f"--installroot={place.tree}",
        f"--releasever={recipe.suite}",
        "--forcearch=x86_64",
        f"--setopt=cachedir={place.top}/dnf",
        f"--setopt=logdir={place.top}/dnf-log",
        "--assumeyes",
        "install",
        *recipe.base,
        *recipe.packages,
    ]


def _fill_by_dnf(wanted: Blueprint, archive: Archive, place: Scratch, hear: Hearing) -> None:
    config = place.top / "dnf.conf"
    config.write_text(dnf_config(archive), "utf-8")
    config.chmod(0o644)
    for name in ("dnf", "dnf-log"):
        (place.top / name).mkdir()
        (place.top / name).chmod(0o777)
    _run(dnf_argv(wanted, config, place), place, hear, archive=archive)


def installed_rpms(text: str) -> tuple[Pinned, ...]:
    """Read what ``rpm -qa`` printed, but for the keys, which count as packages there."""
    rows = [line.split("\t") for line in text.splitlines()]
    return tuple(
        Pinned(name=row[0], version=row[1], architecture=row[2], sha256=row[3])
        for row in sorted(rows)
        if len(row) == 4 and row[0] != "gpg-pubkey"
    )


# --- what it was made of -------------------------------------------------------------------------


def _manifest(wanted: Blueprint, mirror: Mirror, place: Scratch) -> Manifest:
    if wanted.recipe.family is Family.RPM:
        argv = ["rpm", "--root", str(place.tree), "-qa", "--queryformat", _QUERY]
        done = run(in_namespace(argv), timeout_s=300, env=_environment(place), cwd="/")
        packages, epoch = installed_rpms(done.text()), 0
        version = run(["dnf", "--version"], timeout_s=60, check=False).text().splitlines()
        used = {"dnf": " ".join(version[:1])}
    else:
        packages, epoch, used = installed(place.tree), epoch_of(place.tree), {}
    if not packages:
        raise Failed(f"{BUILDERS[wanted.recipe.family][0]} installed no package")
    return Manifest(
        name=wanted.title,
        recipe=Path(wanted.source).name or wanted.recipe.name,
        recipe_digest=wanted.digest(),
        suite=wanted.recipe.suite,
        mirror=mirror.main,
        security_mirror=mirror.security,
        epoch=epoch,
        builders={**builders(), **used},
        packages=packages,
        checks=wanted.checks,
    )


_FILL = {Family.UBUNTU: _fill_by_mmdebstrap, Family.RPM: _fill_by_dnf}
