"""Putting what came from a machine where it belongs, without harm to what the user changed.

Everything appears under a temporary name in its own directory and is renamed: a file of the user
is never opened for writing, and a link is replaced, not followed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from enum import Enum
from itertools import chain

from mayfly.engine.session.openat import NAME_LIMIT, Refused, find, rename_new
from mayfly.engine.session.snapshot import Seen, seen
from mayfly.guest.tree import Type

TEMPORARY = ".mayfly-"
SUFFIX = ".mayfly-from-machine"
TRIES = 1000


class Now(Enum):
    """What is under a name of the host at this moment."""

    ABSENT = "absent"
    AS_SENT = "as sent"
    CHANGED = "changed"


def look(parent: int, name: str, sent: Seen | None) -> Now:
    """Compare what is there with what was sent."""
    status = find(parent, name)
    if status is None:
        return Now.ABSENT
    return Now.AS_SENT if sent is not None and sent.holds(status) else Now.CHANGED


def temporary_name() -> str:
    """Make a name that nobody guesses."""
    return TEMPORARY + os.urandom(8).hex()


class Arrival:
    """A file that is being received; ``close`` leaves no trace unless it was put in place."""

    def __init__(self, parent: int) -> None:
        self._parent = os.dup(parent)
        self.name = temporary_name()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._file = os.open(self.name, flags, 0o600, dir_fd=self._parent)
        except OSError:
            os.close(self._parent)
            raise
        self._placed = False

    def write(self, data: bytes) -> None:
        """Append to the content."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]

    def finish(self, name: str, sent: Seen | None, *, mode: int, mtime_ns: int) -> tuple[str, Seen]:
        """Put the file in place; gives the name that it got, and what it is now."""
        old = find(self._parent, name)
        if old is not None and (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
            # Only root can give a file away; to lose the owner is no reason to lose the file.
            with suppress(OSError):
                os.fchown(self._file, old.st_uid, old.st_gid)
        os.fchmod(self._file, mode & 0o777)
        os.utime(self._file, ns=(mtime_ns, mtime_ns))
        placed = put(self._parent, self.name, name, sent)
        self._placed = True
        return placed, seen(os.fstat(self._file))

    def close(self) -> None:
        """Remove what was not put in place."""
        os.close(self._file)
        if not self._placed:
            with suppress(OSError):
                os.unlink(self.name, dir_fd=self._parent)
        os.close(self._parent)


def put_link(
    parent: int, name: str, sent: Seen | None, *, target: str, mtime_ns: int
) -> tuple[str, Seen]:
    """Make a symbolic link; gives the name that it got, and what it is now."""
    temporary = temporary_name()
    os.symlink(target, temporary, dir_fd=parent)
    try:
        with suppress(OSError):
            os.utime(temporary, ns=(mtime_ns, mtime_ns), dir_fd=parent, follow_symlinks=False)
        placed = put(parent, temporary, name, sent)
    except OSError:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=parent)
        raise
    status = os.stat(placed, dir_fd=parent, follow_symlinks=False)
    return placed, seen(status, target)


def put(parent: int, temporary: str, name: str, sent: Seen | None) -> str:
    """Give a file or link its name, or one beside it when the user's must stay."""
    now = look(parent, name, sent)
    if now is Now.AS_SENT and sent is not None and sent.type is Type.DIRECTORY:
        now = _clear_directory(parent, name)
    if now is Now.AS_SENT:
        os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
        return name
    for place in chain([name] if now is Now.ABSENT else [], beside(name)):
        with suppress(FileExistsError):
            rename_new(parent, temporary, place)
            return place
    raise OSError(errno.EEXIST, f"{TRIES} files like this stand beside it")


def _clear_directory(parent: int, name: str) -> Now:
    """Remove a directory only if it is empty: nothing else goes on the word of a machine."""
    try:
        os.rmdir(name, dir_fd=parent)
    except OSError:
        return Now.CHANGED
    return Now.ABSENT


def put_directory(parent: int, name: str, sent: Seen | None) -> str:
    """Have a directory under this name, or under one beside it; gives the name."""
    status = find(parent, name)
    if status is not None and stat.S_ISDIR(status.st_mode):
        return name
    if status is not None and sent is not None and sent.holds(status):
        os.unlink(name, dir_fd=parent)
        status = None
    for place in chain([name] if status is None else [], beside(name)):
        with suppress(FileExistsError):
            os.mkdir(place, 0o700, dir_fd=parent)
            return place
    raise OSError(errno.EEXIST, f"{TRIES} directories like this stand beside it")


def beside(name: str) -> Iterator[str]:
    """Give the names for a version from the machine, in the order they are tried."""
    encoded = os.fsencode(name)
    for number in range(TRIES):
        suffix = f"{SUFFIX}.{number}" if number else SUFFIX
        yield os.fsdecode(encoded[: NAME_LIMIT - len(suffix)] + suffix.encode())


def remove(parent: int, name: str, sent: Seen) -> bool:
    """Remove what the job removed; ``False`` when the user's version must stay."""
    now = look(parent, name, sent)
    if now is not Now.AS_SENT:
        return now is Now.ABSENT
    if sent.type is Type.DIRECTORY:
        return _clear_directory(parent, name) is Now.ABSENT
    os.unlink(name, dir_fd=parent)
    return True


def check_link(path: str, target: str, sent: Mapping[str, Seen]) -> None:
    """Refuse a link that could lead out of the tree, unless the user had that very link.

    ``..`` may stand only at the start: after another name it would be taken from wherever that
    name leads, and a name may be a link.
    """
    old = sent.get(path)
    if old is not None and old.type is Type.LINK and old.target == target:
        return
    if not target or "\0" in target:
        raise Refused("a link to nothing")
    if target.startswith("/"):
        raise Refused("a link to an absolute path")
    names = [name for name in target.split("/") if name not in {"", "."}]
    climbs = _leading_climbs(names)
    if ".." in names[climbs:]:
        raise Refused("a link with '..' after a name")
    if climbs > path.count("/"):
        raise Refused("a link that leads out of the directory")


def _leading_climbs(names: list[str]) -> int:
    for count, name in enumerate(names):
        if name != "..":
            return count
    return len(names)
