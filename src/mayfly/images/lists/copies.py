"""Put the images of a list beside it, where the list says that they are fetched."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urljoin

from mayfly.errors import Invalid, Missing, Untrusted
from mayfly.images.lists.files import sync_directory
from mayfly.images.lists.model import ImageList, ListedImage
from mayfly.images.room import check_room
from mayfly.images.trouble import explained

_TEMPORARY = ".image-"
_BLOCK = 4 << 20

Report = Callable[[str, float], None]
"""Called with the title of an image and how much of it has been copied, 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """One image, and where it goes."""

    image: ListedImage
    place: Path
    disk: Path | None
    """Where it is now; None: it must be in its place already."""


def plan_copies(
    images: ImageList, file: Path, disks: Mapping[str, Path]
) -> tuple[tuple[Copy, ...], tuple[ListedImage, ...]]:
    """Say which images go where beside a list that is published as ``file``; pure.

    Gives also those that the list has elsewhere. ``disks`` are those of the catalogue, by SHA-512.
    """
    beside = urljoin(images.uri, ".")
    copies: list[Copy] = []
    elsewhere: list[ListedImage] = []
    for image in images.images:
        if not image.uri.startswith(beside):
            elsewhere.append(image)
            continue
        name = unquote(image.uri[len(beside) :])
        if not name or "/" in name or "\0" in name or name.startswith(".") or name == file.name:
            raise Invalid(
                f"image {image.title!r} cannot be put beside the list: it is fetched from "
                f"{image.uri[:300]}",
                hint="'mayfly endorse list add' with another --uri",
            )
        copies.append(Copy(image=image, place=file.with_name(name), disk=disks.get(image.sha512)))
    return tuple(copies), tuple(elsewhere)


@contextmanager
def copied(copies: Iterable[Copy], mark: str, report: Report) -> Iterator[Callable[[], None]]:
    """Copy images that are not in their places yet; gives what puts all of them there at once.

    Only for whoever holds the lock of the list, whose name is the ``mark``. What a killed one left
    there is cleared first.
    """
    wanted = [each for each in copies if not _is_there(each)]
    for directory in {each.place.parent for each in wanted}:
        for left in directory.glob(f"{_TEMPORARY}{mark}-*"):
            left.unlink(missing_ok=True)
        here = [each.image.size_bytes for each in wanted if each.place.parent == directory]
        check_room(directory, sum(here))
    staged: list[tuple[Path, Path]] = []
    try:
        for number, each in enumerate(wanted):
            temporary = each.place.with_name(f"{_TEMPORARY}{mark}-{number}")
            staged.append((temporary, each.place))
            with explained(temporary):
                _copy(each, temporary, report)
        yield lambda: _put(staged)
    finally:
        for temporary, _ in staged:
            temporary.unlink(missing_ok=True)


def _put(staged: Iterable[tuple[Path, Path]]) -> None:
    for temporary, place in staged:
        temporary.rename(place)
        sync_directory(place.parent)


def _is_there(copy: Copy) -> bool:
    """Tell whether the very file is in its place; refuse when it is neither there nor here."""
    try:
        if copy.place.stat().st_size == copy.image.size_bytes:
            with copy.place.open("rb") as file:
                if hashlib.file_digest(file, "sha512").hexdigest() == copy.image.sha512:
                    return True
    except FileNotFoundError:
        pass
    if copy.disk is None:
        raise Missing(
            f"image {copy.image.title!r} of the list is neither here nor at {copy.place}",
            hint="put it there yourself, or leave --with-images out",
        )
    return False


def _copy(copy: Copy, temporary: Path, report: Report) -> None:
    assert copy.disk is not None
    digest, done = hashlib.sha512(), 0
    with copy.disk.open("rb") as source, temporary.open("wb") as target:
        while block := source.read(_BLOCK):
            digest.update(block)
            target.write(block)
            done += len(block)
            report(copy.image.title, done / max(copy.image.size_bytes, done))
        target.flush()
        os.fchmod(target.fileno(), 0o644)
        os.fsync(target.fileno())
    if digest.hexdigest() != copy.image.sha512:
        raise Untrusted(
            f"the disk of image {copy.image.title!r} is not the one that the list has any more",
            hint="build or import the image again, and endorse it",
        )
