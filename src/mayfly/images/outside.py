"""Take a file from outside in hand: open it, hold it still, say in refusals which it was."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mayfly.errors import Invalid, Missing, Quota, Untrusted
from mayfly.images.follow import follow
from mayfly.images.formats import SECTOR
from mayfly.images.hostile import TIMEOUT_S, is_readable, path_of, readable
from mayfly.images.room import check_room


@contextmanager
def opened_file(file: Path) -> Iterator[BinaryIO]:
    """Open a file, and nothing else, for reading."""
    try:
        # Not blocking: a FIFO of that name would else hold us for ever.
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise Missing(f"there is no file {file}") from error
    except OSError as error:
        raise Invalid(f"it cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Invalid("it is not a file")
    with open(descriptor, "rb") as source:
        yield source


@contextmanager
def about(file: Path | str) -> Iterator[None]:
    """Say in every refusal what it is about."""
    try:
        yield
    except (Invalid, Quota, Untrusted) as error:
        raise type(error)(f"cannot import {file}: {error.message}", hint=error.hint) from error


@contextmanager
def unchanging(source: BinaryIO, directory: Path) -> Iterator[BinaryIO]:
    """Give the file, or a copy when others could change it after it was judged.

    It is a copy too when qemu-img, which has fewer rights than root, could not read the file.
    """
    found = os.fstat(source.fileno())
    ours = found.st_uid in (0, os.geteuid()) and not found.st_mode & 0o022
    if ours and is_readable(source):
        yield source
        return
    check_room(directory, found.st_blocks * SECTOR)
    copy = directory / "copy"
    argv = ["cp", "--sparse=always", "--reflink=auto", path_of(source), str(copy)]
    follow(argv, timeout_s=TIMEOUT_S, pass_fds=(source.fileno(),))
    with readable(copy) as target:
        yield target
    copy.unlink()


def sha512_of(file: BinaryIO) -> str:
    """Hash a file as a whole: what a list of images vouches for."""
    file.seek(0)
    digest = hashlib.sha512()
    while piece := file.read(1 << 20):
        digest.update(piece)
    return digest.hexdigest()
