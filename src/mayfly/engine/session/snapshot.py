"""What a path was when it was sent: how we know whether somebody changed it since."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from mayfly.guest.tree import Type

_TYPES = {
    stat.S_IFREG: Type.FILE,
    stat.S_IFDIR: Type.DIRECTORY,
    stat.S_IFLNK: Type.LINK,
    stat.S_IFIFO: Type.FIFO,
}
_STRANGE = {
    stat.S_IFSOCK: "socket",
    stat.S_IFBLK: "block device",
    stat.S_IFCHR: "character device",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One path as it was; of a directory only the type counts."""

    type: Type | None
    size: int = 0
    mtime_ns: int = 0
    ino: int = 0
    ctime_ns: int = 0
    target: str = ""
    """Of a link; it is not compared, the inode of a link never changes its target."""

    def holds(self, status: os.stat_result) -> bool:
        """Whether the path is still as it was."""
        now = seen(status, self.target)
        return now == self and self.type is not None


def seen(status: os.stat_result, target: str = "") -> Seen:
    """Remember what a path is now."""
    kind = type_of(status.st_mode)
    if kind is Type.DIRECTORY:
        return Seen(type=kind)
    return Seen(
        type=kind,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        ino=status.st_ino,
        ctime_ns=status.st_ctime_ns,
        target=target,
    )


def type_of(mode: int) -> Type | None:
    """Give the kind of entry for a file mode; ``None`` for what does not travel."""
    return _TYPES.get(stat.S_IFMT(mode))


def strange(mode: int) -> str:
    """Name what does not travel."""
    return _STRANGE.get(stat.S_IFMT(mode), "unknown kind of file")
