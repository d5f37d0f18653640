"""Versions of one image side by side: each older one in a directory ``NAME@DIGEST``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from mayfly.errors import Conflict, Missing, Untrusted
from mayfly.images.catalogue.record import RECORD, read_record
from mayfly.images.catalogue.reference import DIGEST_LEAST, Reference, is_name
from mayfly.model import Image


def current_names(directory: Path) -> list[str]:
    """Give the names of the images in a directory."""
    return sorted(name for name in _entries(directory) if is_name(name))


def older(directory: Path, name: str = "") -> Iterator[Path]:
    """Give the directories of older versions, of one name or of all."""
    for entry in sorted(_entries(directory)):
        before, at, digest = entry.partition("@")
        if at and len(digest) == DIGEST_LEAST and before == (name or before) and is_name(before):
            yield directory / entry


def find_version(directory: Path, wanted: Reference) -> Image | None:
    """Give the version that is pinned, if this directory has it; the newest one comes first."""
    places = [directory / wanted.name, *older(directory, wanted.name)]
    found = [image for image in map(_read, places) if image is not None and fits(image, wanted)]
    return found[0] if found else None


def fits(image: Image, wanted: Reference) -> bool:
    """Tell whether an image of the right name is the one that is meant."""
    if wanted.sha512:
        # What a list vouches for is as good a pin as the disk that was made of it.
        digests = (image.sha512, image.endorsed_sha512)
        return any(digest.startswith(wanted.sha512) for digest in digests)
    return not wanted.version or image.version == wanted.version


def age(image: Image) -> tuple[str, int]:
    """Give what is higher for a version that was put in later."""
    return image.created_at, image.mtime_ns


def _read(place: Path) -> Image | None:
    try:
        return read_record(place)
    except (Missing, Untrusted):
        return None


def set_aside(place: Path, work: Path) -> Path | None:
    """Put the version in ``place`` beside it too, of the same files; gives where, if it is new.

    Called before the new version takes the place, so that the one before is never lost: when the
    process dies in between, one version is there under both names.
    """
    image = _read(place)
    if image is None:
        return None
    target = place.with_name(f"{place.name}@{image.sha512[:DIGEST_LEAST]}")
    if target.exists():
        return None
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(mode=0o700)
    for file in place.iterdir():
        os.link(file, work / file.name)
    work.chmod(place.stat().st_mode & 0o777)
    work.rename(target)
    return target


def check_version(directory: Path, name: str, version: str, sha512: str) -> None:
    """Refuse another disk with a version that is here already: a pin must mean one thing."""
    found = find_version(directory, Reference(name=name, version=version))
    if found is not None and found.sha512 != sha512:
        raise Conflict(
            f"version {version} of '{name}' is here already, with another disk",
            hint="give the new one a version of its own, or --force instead to replace the image",
        )


def forget_double(place: Path) -> None:
    """Remove what lies beside an image and is the same disk: it is not an older version."""
    image = _read(place)
    if image is not None:
        double = place.with_name(f"{place.name}@{image.sha512[:DIGEST_LEAST]}")
        if double.is_dir() and RECORD in os.listdir(double):
            shutil.rmtree(double)


def _entries(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, PermissionError):
        return []
