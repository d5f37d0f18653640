"""Small files of the guest: read if there, replaced whole."""

from __future__ import annotations

import os
import stat


def beneath(root: str, path: str) -> str:
    """Give the place of an absolute path when the guest's tree begins at ``root``."""
    return path if root == "/" else os.path.join(root, path.lstrip("/"))


def read_text(path: str) -> str:
    """Give the content of a file, "" when it is missing; odd bytes survive a round trip."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return ""


def write_text(path: str, text: str, *, mode: int = 0o644) -> None:
    """Replace a file by one with new content; an existing file's owner and mode are kept.

    A link is replaced, not followed. A file that is itself a mount point is written in place.
    """
    data = text.encode("utf-8", "surrogateescape")
    temporary = f"{path}.mayfly"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, mode)
    try:
        _write_all(fd, data)
        _take_over(path, fd, mode)
    finally:
        os.close(fd)
    try:
        os.rename(temporary, path)
    except OSError:
        os.unlink(temporary)
        _overwrite(path, data)


def make_folders(path: str) -> None:
    """Make a directory and its parents, as root's, if missing."""
    os.makedirs(path, mode=0o755, exist_ok=True)


def _take_over(path: str, fd: int, mode: int) -> None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        os.fchmod(fd, mode)
        return
    if stat.S_ISREG(status.st_mode):
        os.fchown(fd, status.st_uid, status.st_gid)
        os.fchmod(fd, stat.S_IMODE(status.st_mode))
    else:
        os.fchmod(fd, mode)


def _overwrite(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    try:
        _write_all(fd, data)
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
