"""Small files that are whole or not there, whenever a process dies, and that only root writes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mayfly.errors import Unavailable, Untrusted
from mayfly.images.trouble import explained

_TEMPORARY = ".new-"
_POLL_S = 0.02


def write_whole(file: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Put a file in place in one step; after a crash it is the old one or the new one."""
    with explained(file):
        descriptor, name = tempfile.mkstemp(prefix=_TEMPORARY, dir=file.parent)
        try:
            with os.fdopen(descriptor, "wb") as new:
                new.write(data)
                new.flush()
                os.fchmod(new.fileno(), mode)
                os.fsync(new.fileno())
            Path(name).rename(file)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        sync_directory(file.parent)


def remove_whole(file: Path) -> None:
    """Remove a file, and see that it stays removed."""
    with explained(file):
        file.unlink(missing_ok=True)
        sync_directory(file.parent)


def sync_directory(directory: Path) -> None:
    """See the names in a directory reach the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(directory: Path) -> None:
    """Make a directory that all may read and its owner alone may write to."""
    with explained(directory):
        if directory.is_dir():
            return
        make_directory(directory.parent)
        with contextlib.suppress(FileExistsError):
            directory.mkdir()
            if os.geteuid() == 0:
                # Whatever the umask: who runs an image must see what vouches for it.
                directory.chmod(0o755)


def clear_debris(directory: Path) -> None:
    """Remove what a killed process left; only for the holder of the lock."""
    for name in directory.glob(f"{_TEMPORARY}*"):
        name.unlink(missing_ok=True)


def read_owned(file: Path, most: int) -> bytes:
    """Read a file that nobody but root or the caller could have written.

    Raises ``FileNotFoundError``, and ``Untrusted`` when somebody else could have.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Untrusted(f"{file} is a symbolic link", hint="remove it") from error
        raise
    with os.fdopen(descriptor, "rb") as opened:
        _check_owned(file, os.fstat(opened.fileno()))
        data = opened.read(most + 1)
    if len(data) > most:
        raise Untrusted(f"{file} has more than {most} bytes", hint="it is none of ours: remove it")
    return data


def check_owned_directory(directory: Path) -> None:
    """Refuse a directory that others could write to; one that is not there is fine."""
    try:
        found = directory.lstat()
    except FileNotFoundError:
        return
    _check_owned(directory, found)


def _check_owned(path: Path, found: os.stat_result) -> None:
    kind = stat.S_IFMT(found.st_mode)
    if kind not in (stat.S_IFREG, stat.S_IFDIR):
        raise Untrusted(f"{path} is neither a file nor a directory", hint="remove it")
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
        raise Untrusted(
            f"{path} could have been written by others: it belongs to uid {found.st_uid} and has "
            f"mode {found.st_mode & 0o7777:04o}",
            hint=f"see that its content is right, then 'chown root {path}; chmod go-w {path}'",
        )


@contextmanager
def locked(file: Path, *, wait_s: float = 30.0) -> Iterator[None]:
    """Be the only one who writes; the lock ends with the process, however that ends.

    Raises ``Unavailable`` when another one holds it for longer than ``wait_s`` seconds.
    """
    with explained(file):
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    deadline = time.monotonic() + wait_s
    try:
        while not _take(descriptor):
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"another process changes what lies in {file.parent}", hint="try again soon"
                )
            time.sleep(_POLL_S)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
