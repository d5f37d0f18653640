"""The images of this host: one directory each, with ``image.json`` and the disk.

An image is complete from the moment that its directory bears its name: it is made beside, in
``.work/NAME``, and moved in one step. Whoever holds the lock of a name owns that directory too,
so what a killed builder left there is cleared by the next one.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import logging
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mayfly.errors import Conflict, Denied, Failed, Invalid, Missing, Untrusted
from mayfly.images.record import RECORD, Facts, make_record, read_record, write_record
from mayfly.images.usage import forget
from mayfly.model import Image

log = logging.getLogger("mayfly.images")

DISK = "disk.qcow2"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def check_name(name: str) -> str:
    """Give the name back, or refuse it."""
    if not _NAME.fullmatch(name):
        raise Invalid(
            f"'{name}' is not a name for an image",
            hint="at most 64 of a-z 0-9 . _ -, the first a letter or digit",
        )
    return name


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """An image in the making; only the holder of the name's lock has one."""

    name: str
    directory: Path
    """Private, on the same file system as the catalogue, gone at the end."""
    place: Path
    """Where the image will be."""

    @property
    def disk(self) -> Path:
        """Give where the disk must be written, as qcow2."""
        return self.directory / "image" / DISK

    def admit(self, facts: Facts) -> Image:
        """Hash the disk, record what it is, and put the image into the catalogue."""
        _sync(self.disk)
        record = make_record(self.name, self.disk, facts)
        image = self.disk.parent
        # Nobody writes to an image again; machines write to overlays.
        for file in image.iterdir():
            file.chmod(_mode(root=0o444, user=0o400))
        write_record(image / RECORD, record)
        (image / RECORD).chmod(_mode(root=0o644, user=0o600))
        image.chmod(_mode(root=0o755, user=0o700))
        _sync(self.disk.parent)
        _move(self.disk.parent, self.place)
        _sync(self.place.parent)
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
            for name in _names(directory):
                try:
                    images.setdefault(name, read_record(directory / name))
                except (Untrusted, Missing) as error:
                    log.warning("image left out: %s", error.message)
        return [images[name] for name in sorted(images)]

    def find(self, name: str) -> Image:
        """Give the image of this name."""
        check_name(name)
        for directory in self.dirs:
            if (directory / name).is_dir():
                return read_record(directory / name)
        known = sorted({name for directory in self.dirs for name in _names(directory)})
        there = f"images here: {', '.join(known)}; " if known else ""
        raise Missing(
            f"there is no image '{name}'",
            hint=f"{there}make one with 'mayfly image build debian-12'",
        )

    @contextmanager
    def draft(self, name: str, *, work: str, force: bool = False) -> Iterator[Draft]:
        """Reserve a name and give a place to make the image in; it is cleared at the end.

        ``work`` says what is going on, to the next who wants the same name.
        """
        check_name(name)
        place = self.own / name
        with _locked(self.own, name, work):
            if place.exists() and not force:
                raise Conflict(
                    f"there is an image '{name}' already",
                    hint="give --force to replace it, or --name for another name",
                )
            directory = self.own / ".work" / name
            _clear(directory)
            _make_private(directory.parent)
            (directory / "image").mkdir(parents=True, mode=0o700)
            try:
                yield Draft(name=name, directory=directory, place=place)
            finally:
                _clear(directory)

    def remove(self, name: str) -> None:
        """Delete an image of this user."""
        check_name(name)
        place = self.own / name
        if not place.is_dir():
            image = self.find(name)
            raise Denied(
                f"image '{name}' is not yours but the site's: {image.disk.parent}",
                hint="ask whoever looks after this host",
            )
        with _locked(self.own, name, "remove"):
            gone = self.own / ".work" / name
            _clear(gone)
            _make_private(gone.parent)
            place.rename(gone)
            _clear(gone)
            forget(place)


def _names(directory: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in directory.iterdir() if _NAME.fullmatch(entry.name))
    except (FileNotFoundError, PermissionError):
        return []


@contextmanager
def _locked(own: Path, name: str, work: str) -> Iterator[None]:
    """Hold the lock of one name; the lock ends with the process, however that ends."""
    locks = own / ".lock"
    _make_open(own)
    _make_private(locks)
    descriptor = os.open(locks / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip()
            raise Conflict(
                f"image '{name}' is being worked on by {holder or 'another process'}",
                hint="wait for it, or choose another name with --name",
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} ({work})\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _mode(*, root: int, user: int) -> int:
    """Choose: what root makes is the site's, for all to run; what a user makes is his own."""
    return root if os.geteuid() == 0 else user


def _make_private(directory: Path) -> None:
    """Make a directory for its owner alone, whatever the umask or an older Mayfly made of it."""
    directory.mkdir(mode=0o700, exist_ok=True)
    directory.chmod(0o700)


def _make_open(directory: Path) -> None:
    """Make a directory and those above it; what is there already was decided by somebody."""
    if directory.is_dir():
        return
    _make_open(directory.parent)
    with contextlib.suppress(FileExistsError):
        directory.mkdir()
        directory.chmod(_mode(root=0o755, user=0o700))


def _clear(directory: Path) -> None:
    if directory.exists():
        shutil.rmtree(directory)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _move(new: Path, place: Path) -> None:
    """Put a directory in its place; one that is there already is swapped out in the same step."""
    if not place.exists():
        new.rename(place)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(place), _RENAME_EXCHANGE)
    if libc.renameat2(*arguments) == 0:
        return
    code = ctypes.get_errno()
    if code not in (errno.EINVAL, errno.ENOSYS):
        raise Failed(f"cannot put {place} in place: {os.strerror(code)}")
    place.rename(new.with_name("old"))  # a file system that cannot swap, such as NFS
    new.rename(place)
