"""The directories of the catalogue: locks of names, modes, and moves that happen in one step."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mayfly.errors import Conflict, Failed

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextmanager
def locked(own: Path, name: str, work: str) -> Iterator[None]:
    """Hold the lock of one name; the lock ends with the process, however that ends."""
    locks = own / ".lock"
    make_open(own)
    make_private(locks)
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


def mode(*, root: int, user: int) -> int:
    """Choose: what root makes is the site's, for all to run; what a user makes is his own."""
    return root if os.geteuid() == 0 else user


def make_private(directory: Path) -> None:
    """Make a directory for its owner alone, whatever the umask or an older Mayfly made of it."""
    directory.mkdir(mode=0o700, exist_ok=True)
    directory.chmod(0o700)


def make_open(directory: Path) -> None:
    """Make a directory and those above it; what is there already was decided by somebody."""
    if directory.is_dir():
        return
    make_open(directory.parent)
    with contextlib.suppress(FileExistsError):
        directory.mkdir()
        directory.chmod(mode(root=0o755, user=0o700))


def clear(directory: Path) -> None:
    """Delete a directory if it is there."""
    if directory.exists():
        shutil.rmtree(directory)


def sync(path: Path) -> None:
    """See that what was written to a path is on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move(new: Path, place: Path) -> None:
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
