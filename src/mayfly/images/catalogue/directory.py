"""The images of this host: one directory each, with ``image.json`` and the disk.

``NAME`` is the newest version, ``NAME@DIGEST`` an older one that was kept, ``.aliases/NAME`` says
what else a name stands for.

An image is complete from the moment that its directory bears its name: it is made beside, in
``.work/NAME``, and moved in one step. Whoever holds the lock of a name owns that directory too,
so what a killed builder left there is cleared by the next one.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from mayfly.errors import Conflict, Denied, Invalid, Missing, Untrusted
from mayfly.images.catalogue.places import clear, locked, make_open, make_private, mode, move, sync
from mayfly.images.catalogue.record import RECORD, Facts, make_record, read_record, write_record
from mayfly.images.catalogue.reference import (
    ALIASES,
    Reference,
    check_name,
    parse_reference,
    read_alias,
)
from mayfly.images.catalogue.usage import forget
from mayfly.images.catalogue.versions import (
    age,
    check_version,
    current_names,
    find_version,
    forget_double,
    older,
    set_aside,
)
from mayfly.model import Image

log = logging.getLogger("mayfly.images")

DISK = "disk.qcow2"
__all__ = ["DISK", "Catalogue", "Draft", "Existing", "check", "check_name"]


def check(image: Image) -> None:
    """Refuse an image whose disk is gone or is not the file that was admitted.

    It costs one look at the directory; the content was hashed when the image was admitted.
    """
    again = f"build or import '{image.name}' again with --force"
    try:
        found = os.lstat(image.disk)
    except FileNotFoundError as error:
        raise Missing(
            f"the disk of image '{image.name}' is gone: {image.disk}", hint=again
        ) from error
    if not stat.S_ISREG(found.st_mode):
        raise Untrusted(f"the disk of image '{image.name}' is not a file: {image.disk}", hint=again)
    if found.st_size != image.size_bytes:
        raise Untrusted(
            f"the disk of image '{image.name}' has {found.st_size} bytes,"
            f" but {image.size_bytes} were admitted",
            hint=again,
        )
    if found.st_mtime_ns != image.mtime_ns:
        raise Untrusted(
            f"the disk of image '{image.name}' was changed since it was admitted", hint=again
        )


class Existing(StrEnum):
    """What becomes of an image that has the name already."""

    REFUSE = "refuse"
    """It stays, and the new one is refused."""
    REPLACE = "replace"
    KEEP = "keep"
    """It stays beside the new one, as an older version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """An image in the making; only the holder of the name's lock has one."""

    name: str
    directory: Path
    """Private, on the same file system as the catalogue, gone at the end."""
    place: Path
    """Where the image will be."""
    keep: bool = False
    """Whether a version that is there stays, beside the new one."""

    @property
    def disk(self) -> Path:
        """Give where the disk must be written, as qcow2."""
        return self.directory / "image" / DISK

    def admit(self, facts: Facts) -> Image:
        """Hash the disk, record what it is, and put the image into the catalogue."""
        sync(self.disk)
        record = make_record(self.name, self.disk, facts)
        if self.keep:
            check_version(self.place.parent, self.name, record["version"], record["sha512"])
        image = self.disk.parent
        # Nobody writes to an image again; machines write to overlays.
        for file in image.iterdir():
            file.chmod(mode(root=0o444, user=0o400))
        write_record(image / RECORD, record)
        (image / RECORD).chmod(mode(root=0o644, user=0o600))
        image.chmod(mode(root=0o755, user=0o700))
        sync(self.disk.parent)
        if self.keep and self.place.exists():
            set_aside(self.place, self.directory / "older")
        move(self.disk.parent, self.place)
        forget_double(self.place)
        sync(self.place.parent)
        return read_record(self.place)


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """All images that one user can run."""

    own: Path
    """Where this user's images are made."""
    dirs: tuple[Path, ...]
    """Where images are looked for; the first hit wins."""

    def list(self) -> list[Image]:
        """Give all images by name; one that cannot be read is named in the log."""
        images: dict[str, Image] = {}
        for directory in self.dirs:
            for name in current_names(directory):
                if name not in images and (image := _readable(directory / name)) is not None:
                    images[name] = image
        return [images[name] for name in sorted(images)]

    def versions(self, name: str = "") -> tuple[Image, ...]:
        """Give all versions, also older ones, of one name or of all; the newest of each first."""
        found: dict[tuple[str, str], Image] = {}
        for directory in self.dirs:
            names = [name] if name else current_names(directory)
            places = [directory / each for each in names if (directory / each).is_dir()]
            for place in (*places, *older(directory, name)):
                image = _readable(place)
                if image is not None:
                    found.setdefault((place.name.partition("@")[0], image.sha512), image)
        # Those with an @ in their name are not what the bare name means.
        ordered = sorted(found.items(), key=lambda item: age(item[1]), reverse=True)
        ordered.sort(key=lambda item: (item[0][0], "@" in item[1].name))
        return tuple(image for _, image in ordered)

    def find(self, name: str) -> Image:
        """Give the image of this name, pin or alias; the first directory that has it wins."""
        wanted = parse_reference(name)
        if not wanted.is_pinned:
            for directory in self.dirs:
                if (directory / wanted.name).is_dir():
                    return read_record(directory / wanted.name)
                alias = read_alias(directory, wanted.name)
                if alias is not None:
                    return self._aliased(wanted.name, alias)
            raise self._missing(name)
        for directory in self.dirs:
            found = find_version(directory, wanted)
            if found is not None:
                return found
        raise self._missing(name)

    def _aliased(self, name: str, alias: Reference) -> Image:
        for directory in self.dirs:
            if alias.is_pinned:
                found = find_version(directory, alias)
                if found is not None:
                    return found
            elif (directory / alias.name).is_dir():
                return read_record(directory / alias.name)
        raise Missing(
            f"the alias '{name}' stands for '{alias}', which is not here",
            hint=f"'mayfly image alias {name} IMAGE --force' has it stand for another image",
        )

    def _missing(self, text: str) -> Missing:
        name = text.partition("@")[0]
        if "@" in text and (there := self.versions(name)):
            words = ", ".join(image.version for image in there)
            return Missing(
                f"there is no image '{text}'", hint=f"versions of '{name}' here: {words}"
            )
        known = sorted({name for directory in self.dirs for name in current_names(directory)})
        here = f"images here: {', '.join(known)}; " if known else ""
        return Missing(
            f"there is no image '{text}'",
            hint=f"{here}make one with 'mayfly image build debian-12'",
        )

    def aliases(self) -> dict[str, Reference]:
        """Give all aliases; one that an image of the same name hides is left out."""
        found: dict[str, Reference] = {}
        taken: set[str] = set()
        for directory in self.dirs:
            taken |= set(current_names(directory))
            for name in current_names(directory / ALIASES):
                alias = None if name in taken else read_alias(directory, name)
                if alias is not None:
                    found.setdefault(name, alias)
        return dict(sorted(found.items()))

    def set_alias(self, name: str, target: str, *, force: bool = False) -> Image:
        """Have a name stand for an image, a version or one disk; gives what that is now."""
        check_name(name)
        wanted = parse_reference(target)
        image = self.find(target)
        if not wanted.is_pinned and not any((top / wanted.name).is_dir() for top in self.dirs):
            raise Invalid(
                f"'{target}' is an alias itself", hint="have it stand for the image instead"
            )
        with locked(self.own, name, "alias"):
            if (self.own / name).exists():
                raise Conflict(f"there is an image '{name}': no alias can have that name")
            if (self.own / ALIASES / name).exists() and not force:
                raise Conflict(f"there is an alias '{name}' already", hint="--force changes it")
            make_open(self.own / ALIASES)
            fresh = self.own / ALIASES / f".{name}"
            fresh.write_text(f"{wanted}\n")
            fresh.chmod(mode(root=0o644, user=0o600))
            fresh.replace(self.own / ALIASES / name)
        return image

    def remove_alias(self, name: str) -> None:
        """Remove an alias of this user."""
        check_name(name)
        with locked(self.own, name, "alias"):
            try:
                (self.own / ALIASES / name).unlink()
            except FileNotFoundError as error:
                raise Missing(f"you have no alias '{name}'") from error

    @contextmanager
    def draft(
        self, name: str, *, work: str, force: bool = False, keep: bool = False
    ) -> Iterator[Draft]:
        """Reserve a name and give a place to make the image in; it is cleared at the end.

        ``work`` says what is going on, to the next who wants the same name. An image that is there
        is replaced with ``force``, and stays beside the new one, as an older version, with
        ``keep``.
        """
        check_name(name)
        place = self.own / name
        with locked(self.own, name, work):
            if place.exists() and not force and not keep:
                raise Conflict(
                    f"there is an image '{name}' already",
                    hint="give --force to replace it, --new-version to keep both, "
                    "or --name for another name",
                )
            if (self.own / ALIASES / name).exists():
                raise Conflict(
                    f"there is an alias '{name}': no image can have that name",
                    hint=f"'mayfly image alias {name} --remove' removes it",
                )
            directory = self.own / ".work" / name
            clear(directory)
            make_private(directory.parent)
            (directory / "image").mkdir(parents=True, mode=0o700)
            try:
                yield Draft(name=name, directory=directory, place=place, keep=keep)
            finally:
                clear(directory)

    def remove(self, name: str) -> None:
        """Delete an image of this user: one version when it is pinned, else all of them.

        When the newest version goes and others stay, the newest of those takes its place.
        """
        wanted = parse_reference(name)
        there = (self.own / wanted.name).is_dir() or any(older(self.own, wanted.name))
        found = find_version(self.own, wanted) if wanted.is_pinned else None
        if not there or (wanted.is_pinned and found is None):
            if read_alias(self.own, wanted.name) is not None and not wanted.is_pinned:
                raise Invalid(
                    f"'{name}' is an alias", hint=f"'mayfly image alias {name} --remove' removes it"
                )
            image = self.find(name)
            raise Denied(
                f"image '{name}' is not yours but the site's: {image.disk.parent}",
                hint="ask whoever looks after this host",
            )
        with locked(self.own, wanted.name, "remove"):
            place = self.own / wanted.name
            if found is None:
                # The newest goes last: until then the name means what it meant.
                for each in (*older(self.own, wanted.name), place):
                    self._delete(each, wanted.name)
                return
            if found.disk.parent == place:
                successor = self._newest_older(wanted.name)
                if successor is not None:
                    move(successor, place)
                    self._delete(successor, wanted.name)
                    return
            self._delete(found.disk.parent, wanted.name)

    def _newest_older(self, name: str) -> Path | None:
        images = [image for image in map(_readable, older(self.own, name)) if image is not None]
        newest = max(images, key=age, default=None)
        return newest.disk.parent if newest is not None else None

    def _delete(self, place: Path, name: str) -> None:
        """Delete a directory of the catalogue; the caller holds the name's lock."""
        if not place.exists():
            return
        gone = self.own / ".work" / name
        clear(gone)
        make_private(gone.parent)
        place.rename(gone)
        clear(gone)
        forget(place)


def _readable(place: Path) -> Image | None:
    try:
        return read_record(place)
    except (Untrusted, Missing) as error:
        log.warning("image left out: %s", error.message)
        return None
