"""Directories of the host inside the machine: one sshfs over the share port, bound to its places.

The share port carries the SFTP protocol of a server that runs on the host as the user. sshfs
travels with the agent; the guest only needs its kernel's fuse module.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mayfly.guest import linux
from mayfly.guest.fields import Refused, shown

HIDDEN = b"/run/mayfly-share"
OPTIONS = "passive,allow_other,max_conns=1"
MOUNT_S = 20.0
FUSE_DEVICE = (10, 229)


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A directory of the host, to be seen at the same path."""

    path: bytes
    read_only: bool


def has_fuse() -> bool:
    """Tell whether this kernel can mount sshfs, loading its module if need be."""
    if not os.path.exists("/sys/module/fuse") and not os.path.exists("/sys/fs/fuse"):
        linux.run_tool(["modprobe", "fuse"], timeout_s=30)
    if not os.path.exists("/sys/fs/fuse"):
        return False
    if not os.path.exists("/dev/fuse"):
        os.mknod("/dev/fuse", 0o666 | stat.S_IFCHR, os.makedev(*FUSE_DEVICE))
    return True


def mount_shares(
    shares: Sequence[Share],
    *,
    sshfs: Sequence[str],
    port: str,
    make: Callable[[bytes], None],
) -> int:
    """Mount sshfs and bind its directories; ``make(path)`` makes a mount point. Gives its pid."""
    if not sshfs:
        raise Refused("the agent disk has no sshfs")
    if not has_fuse():
        raise Refused("this machine's kernel has no fuse")
    os.makedirs(HIDDEN, mode=0o700, exist_ok=True)
    pid = _start([*sshfs, "-o", OPTIONS, ":/", shown(HIDDEN)], port)
    for share in shares:
        make(share.path)
        linux.mount(HIDDEN + share.path, share.path, flags=linux.MS_BIND)
        if share.read_only:
            flags = linux.MS_BIND | linux.MS_REMOUNT | linux.MS_RDONLY
            linux.mount(b"none", share.path, flags=flags)
    return pid


def _start(argv: Sequence[str], port: str) -> int:
    line = os.open(port, os.O_RDWR | os.O_CLOEXEC)
    complaint, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    actions = [
        (os.POSIX_SPAWN_DUP2, line, 0),
        (os.POSIX_SPAWN_DUP2, line, 1),
        (os.POSIX_SPAWN_DUP2, writer, 2),
    ]
    try:
        pid = os.posix_spawnp(
            argv[0],
            list(argv),
            linux.TOOL_ENV,
            file_actions=actions,
            setsid=True,
            scheduler=linux.ORDINARY,
        )
    finally:
        os.close(line)
        os.close(writer)
    try:
        _await_mount(pid, complaint)
    finally:
        os.close(complaint)
    return pid


def _await_mount(pid: int, complaint: int) -> None:
    deadline = time.monotonic() + MOUNT_S
    with open("/proc/self/mountinfo", "rb") as table:
        changes = select.poll()
        # The kernel flags every change of the table as an error.
        changes.register(table, select.POLLERR | select.POLLPRI)
        while time.monotonic() < deadline:
            table.seek(0)
            if b" " + HIDDEN + b" " in table.read():
                return
            if os.waitpid(pid, os.WNOHANG)[0]:
                raise Refused(f"sshfs gave up: {_read(complaint)}")
            changes.poll(50)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise Refused(f"sshfs did not mount within {MOUNT_S:g} s: {_read(complaint)}")


def _read(pipe: int) -> str:
    with contextlib.suppress(BlockingIOError):
        return os.read(pipe, 1000).decode("utf-8", "replace").strip() or "it said nothing"
    return "it said nothing"
