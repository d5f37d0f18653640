"""What a full disk or a lack of rights means, said with the path and what to do about it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mayfly.errors import Denied, Failed, Quota
from mayfly.images.room import MORE_ROOM

_FULL = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_ELSEWHERE = "MAYFLY_HOME=DIR keeps images elsewhere, TMPDIR=DIR moves the work of a build"


@contextmanager
def explained(place: Path) -> Iterator[None]:
    """Turn what the host refuses into errors of ours; ``place`` is meant when it names no file."""
    try:
        yield
    except OSError as error:
        said = f"{_path(error, place)}: {os.strerror(error.errno or 0)}"
        if error.errno in _FULL:
            raise Quota(f"cannot write {said}", hint=MORE_ROOM) from error
        if error.errno in _DENIED:
            raise Denied(f"cannot use {said}", hint=_ELSEWHERE) from error
        if error.errno == errno.EIO:
            raise Failed(f"cannot use {said}", hint="'dmesg' says what its disk has") from error
        raise


def _path(error: OSError, place: Path) -> str:
    if error.filename is None or isinstance(error.filename, int):
        return str(place)
    return os.fsdecode(error.filename)
