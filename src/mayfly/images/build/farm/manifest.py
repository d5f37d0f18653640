"""``manifest.json``: what an image was built from, package by package, and by which programs.

It lies beside the disk. A later build can be held to it: then each package must have the very
version and file that it names, or the build fails.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from mayfly.command import run
from mayfly.errors import Failed, Invalid, MayflyError, Missing, Untrusted
from mayfly.images.build.farm.blueprint import Blueprint, Check, Pinned

MANIFEST = "manifest.json"
FORMAT = 1
MANIFEST_MOST = 64 << 20
SHOWN = 8
_PROGRAMS = {
    "mmdebstrap": ["mmdebstrap", "--version"],
    "mke2fs": ["mke2fs", "-V"],
    "qemu-img": ["qemu-img", "--version"],
    "grub-mkimage": ["grub-mkimage", "--version"],
}
# Of RPMs as well: x86_64, NetworkManager, 2.0^20230101.
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]+")
_VERSION = re.compile(r"[0-9A-Za-z.+:~^_-]+")
_SHA256 = re.compile(r"(?:[0-9a-f]{64})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What an image was built from."""

    name: str
    recipe: str
    recipe_digest: str
    suite: str
    mirror: str
    security_mirror: str
    epoch: int
    """Seconds: nothing in the image is of a later time."""
    builders: dict[str, str]
    packages: tuple[Pinned, ...]
    checks: tuple[Check, ...]


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write it beside the disk."""
    with (directory / MANIFEST).open("w", encoding="utf-8") as file:
        json.dump({"format": FORMAT, **asdict(manifest)}, file, indent=1)
        file.write("\n")


def find_manifest(directory: Path) -> Manifest | None:
    """Read the manifest of an image; None for one that was not built here."""
    try:
        return read_manifest(directory / MANIFEST)
    except Missing:
        return None
    except Invalid as error:
        raise Untrusted(error.message) from error


def read_manifest(file: Path) -> Manifest:
    """Read a manifest; raises ``Missing``, or ``Invalid`` when it is none."""
    try:
        with file.open("rb") as opened:
            data = opened.read(MANIFEST_MOST + 1)
        stored: Any = json.loads(data) if len(data) <= MANIFEST_MOST else None
    except FileNotFoundError as error:
        raise Missing(f"there is no file {file}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise Invalid(f"{file} is no manifest: {error}") from error
    try:
        if stored.pop("format") != FORMAT:
            raise Invalid(f"{file} has a format that this version does not know")
        packages = tuple(Pinned(**each) for each in stored.pop("packages"))
        checks = tuple(Check(**each) for each in stored.pop("checks"))
        manifest = Manifest(**stored, packages=packages, checks=checks)
    except (KeyError, TypeError, AttributeError) as error:
        raise Invalid(f"{file} is no manifest: {error}") from error
    for package in packages:
        if not _is_sound(package):
            raise Invalid(f"{file} is no manifest: package {str(package.name)[:80]!r}")
    return manifest


def read_pins(file: Path) -> tuple[Pinned, ...]:
    """Give the packages that a manifest demands; raises ``Invalid`` when it is none."""
    try:
        return read_manifest(file).packages
    except Missing as error:
        raise Invalid(error.message) from error


def _is_sound(package: Pinned) -> bool:
    """Tell whether nothing in it could be taken for something else by apt."""
    texts = (package.name, package.version, package.architecture, package.sha256)
    return all(isinstance(text, str) for text in texts) and bool(
        _PACKAGE.fullmatch(package.name)
        and _VERSION.fullmatch(package.version)
        and _PACKAGE.fullmatch(package.architecture)
        and _SHA256.fullmatch(package.sha256)
    )


def preferences(pins: Iterable[Pinned]) -> str:
    """Give what makes apt install these versions, also older ones, and no others."""
    parts = [
        f"Package: {pin.name}\nPin: version {pin.version}\nPin-Priority: 1001\n" for pin in pins
    ]
    return "\n".join(parts)


def check_pins(pins: Sequence[Pinned], found: Iterable[Pinned]) -> None:
    """Refuse what was built when it is not what the manifest demands."""
    wanted, there = _by_name(pins), _by_name(found)
    wrong = [
        f"{name} {'not demanded' if name not in wanted else wanted[name].version}"
        f" (built: {there[name].version if name in there else 'none'})"
        for name in sorted(wanted.keys() | there.keys())
        if not _same(wanted.get(name), there.get(name))
    ]
    if wrong:
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise Failed(
            f"{len(wrong)} packages are not those of the manifest: "
            f"{', '.join(wrong[:SHOWN])}{more}",
            hint="build from the mirror as it was that day; snapshot.debian.org has all days",
        )


def _by_name(packages: Iterable[Pinned]) -> dict[str, Pinned]:
    return {f"{each.name}:{each.architecture}": each for each in packages}


def _same(one: Pinned | None, other: Pinned | None) -> bool:
    if one is None or other is None or one.version != other.version:
        return False
    return "" in (one.sha256, other.sha256) or one.sha256 == other.sha256


# --- what is in a root tree ----------------------------------------------------------------------


def installed(tree: Path) -> tuple[Pinned, ...]:
    """Give the packages in a root tree, with the hashes that its package lists have."""
    status = (tree / "var/lib/dpkg/status").read_text("utf-8", "replace")
    found = {
        (fields["Package"], fields["Version"], fields["Architecture"])
        for fields in map(_fields, status.split("\n\n"))
        if fields.get("Status") == "install ok installed"
    }
    hashes = _hashes(tree, found)
    return tuple(
        Pinned(name=name, version=version, architecture=arch, sha256=hashes.get(key, ""))
        for key in sorted(found)
        for name, version, arch in [key]
    )


def _hashes(tree: Path, wanted: set[tuple[str, str, str]]) -> dict[tuple[str, str, str], str]:
    names = {name for name, _, _ in wanted}
    hashes: dict[tuple[str, str, str], str] = {}
    for file in sorted(tree.glob("var/lib/apt/lists/*_Packages")):
        for stanza in _stanzas(file):
            # Of sixty thousand few are wanted: the first line is looked at before the rest.
            name = stanza.partition("\n")[0].removeprefix("Package: ")
            if name in names:
                fields = _fields(stanza)
                key = (name, fields.get("Version", ""), fields.get("Architecture", ""))
                if key in wanted:
                    hashes.setdefault(key, fields.get("SHA256", ""))
    return hashes


def _stanzas(file: Path) -> Iterator[str]:
    yield from file.read_text("utf-8", "replace").split("\n\n")


def _fields(stanza: str) -> dict[str, str]:
    pairs = [line.partition(": ") for line in stanza.splitlines() if not line.startswith(" ")]
    return {key: value for key, _, value in pairs}


def epoch_of(tree: Path) -> int:
    """Give the time of the newest package list in a tree: no package is younger than that."""
    times = []
    for file in tree.glob("var/lib/apt/lists/*Release"):
        for line in file.read_text("utf-8", "replace").splitlines():
            if line.startswith("Date: "):
                times.append(int(parsedate_to_datetime(line[6:]).timestamp()))
                break
    if not times:
        raise Failed("the tree that was built has no package lists: its date cannot be told")
    return max(times)


def builders() -> dict[str, str]:
    """Give the programs that build images here, with their versions."""
    found = {}
    for program, argv in _PROGRAMS.items():
        if shutil.which(program) is None:
            continue
        try:
            done = run(argv, timeout_s=30, check=False)
        except MayflyError:
            continue
        lines = (done.text() + done.stderr.decode("utf-8", "replace")).strip().splitlines()
        found[program] = lines[0].strip()[:100] if lines else ""
    return found


def manifest_of(blueprint: Blueprint, tree: Path, epoch: int, mirrors: tuple[str, str]) -> Manifest:
    """Write down what a tree was built from; refuses what a demanded manifest does not have."""
    packages = installed(tree)
    if blueprint.pins:
        check_pins(blueprint.pins, packages)
    return Manifest(
        name=blueprint.title,
        recipe=Path(blueprint.source).name or blueprint.recipe.name,
        recipe_digest=blueprint.digest(),
        suite=blueprint.recipe.suite,
        mirror=mirrors[0],
        security_mirror=mirrors[1],
        epoch=epoch,
        builders=builders(),
        packages=packages,
        checks=blueprint.checks,
    )
