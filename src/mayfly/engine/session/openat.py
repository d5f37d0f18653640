"""Paths beneath a directory that cannot lead out of it, whatever anybody makes of the tree.

openat2(2) resolves without following any link; where the kernel has none, each component is
opened by itself. Python's own ``os.open`` follows links in the middle of a path.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PATH_LIMIT = 4095
"""Longest path, in bytes: the kernel takes no longer one."""
NAME_LIMIT = 255
DEPTH_LIMIT = 512

_SYS_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
_RESOLVE = _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS
_RENAME_NOREPLACE = 1
_NO_OPENAT2 = frozenset({errno.ENOSYS, errno.EPERM, errno.EAGAIN})
"""EPERM is what older container filters answer to a system call that they do not know."""
_NO_RENAMEAT2 = frozenset({errno.ENOSYS, errno.EINVAL, errno.EPERM})

DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
LISTING = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: what was a file a moment ago may be a FIFO by now.
CONTENT = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class _How(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


class Refused(ValueError):
    """A path or link from the machine that is not taken, with the reason."""


def parts(path: str) -> list[str]:
    """Cut a relative path into names, or raise ``Refused``; "" is the top itself."""
    if path == "":
        return []
    if "\0" in path:
        raise Refused("its name holds a NUL")
    if path.startswith("/"):
        raise Refused("an absolute path")
    if len(os.fsencode(path)) > PATH_LIMIT:
        raise Refused(f"its path is longer than {PATH_LIMIT} bytes")
    names = path.split("/")
    if len(names) > DEPTH_LIMIT:
        raise Refused(f"it lies deeper than {DEPTH_LIMIT} directories")
    for name in names:
        if name in {"", ".", ".."}:
            raise Refused(f"its path holds '{name}'")
        if len(os.fsencode(name)) > NAME_LIMIT:
            raise Refused(f"its name is longer than {NAME_LIMIT} bytes")
    return names


class Tree:
    """A directory and what lies beneath it; ``walk`` does without openat2(2)."""

    def __init__(self, path: Path, *, walk: bool = False) -> None:
        self._root = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._walk = walk

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self._root)

    def open(self, path: str, flags: int) -> int:
        """Open what lies at ``path``, with one of the sets of flags above; no link is followed."""
        names = parts(path)
        if not self._walk:
            try:
                return _openat2(self._root, path or ".", flags)
            except OSError as error:
                if error.errno not in _NO_OPENAT2:
                    raise
        return self._open_by_steps(names, flags)

    @contextmanager
    def parent(self, path: str) -> Iterator[tuple[int, str]]:
        """Give the open directory that holds ``path``, and the last name of it."""
        directory, _, name = path.rpartition("/")
        if not parts(path):
            raise Refused("it is the top of the tree")
        descriptor = self.open(directory, DIRECTORY)
        try:
            yield descriptor, name
        finally:
            os.close(descriptor)

    def make_directories(self, path: str) -> None:
        """Make the directory at ``path`` with all above it that are missing."""
        names = parts(path)
        for depth in range(1, len(names) + 1):
            with self.parent("/".join(names[:depth])) as (parent, name), suppress(FileExistsError):
                os.mkdir(name, dir_fd=parent)

    def _open_by_steps(self, names: list[str], flags: int) -> int:
        here = os.open(".", DIRECTORY, dir_fd=self._root)
        for name in names[:-1]:
            try:
                below = os.open(name, DIRECTORY, dir_fd=here)
            finally:
                os.close(here)
            here = below
        try:
            return os.open(names[-1] if names else ".", flags | os.O_NOFOLLOW, dir_fd=here)
        finally:
            os.close(here)


def _openat2(root: int, path: str, flags: int) -> int:
    how = _How(flags=flags, mode=0, resolve=_RESOLVE)
    while True:
        result = _syscall(
            ctypes.c_long(_SYS_OPENAT2),
            ctypes.c_long(root),
            ctypes.c_char_p(os.fsencode(path)),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if result >= 0:
            return int(result)
        code = ctypes.get_errno()
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code), path)


def rename_new(directory: int, source: str, target: str) -> None:
    """Rename within one directory; raises ``FileExistsError`` rather than replace anything."""
    code = _renameat2(directory, source, target)
    if code in _NO_RENAMEAT2:
        if find(directory, target) is not None:
            code = errno.EEXIST
        else:
            os.rename(source, target, src_dir_fd=directory, dst_dir_fd=directory)
            return
    if code:
        raise OSError(code, os.strerror(code), target)


def _renameat2(directory: int, source: str, target: str) -> int:
    # C libraries before 2018 have no such function.
    if not hasattr(_libc, "renameat2"):
        return errno.ENOSYS
    result = _libc.renameat2(
        ctypes.c_int(directory),
        ctypes.c_char_p(os.fsencode(source)),
        ctypes.c_int(directory),
        ctypes.c_char_p(os.fsencode(target)),
        ctypes.c_uint(_RENAME_NOREPLACE),
    )
    return 0 if result == 0 else ctypes.get_errno()


def find(directory: int, name: str) -> os.stat_result | None:
    """Look at one name in an open directory, at a link itself; ``None`` when there is nothing."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
