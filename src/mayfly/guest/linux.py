"""Linux calls that Python's library lacks."""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import struct
import time
from collections.abc import Sequence

MS_RDONLY = 1
MS_REMOUNT = 32
MS_BIND = 4096

MCL_CURRENT = 1
MCL_FUTURE = 2

RNDADDENTROPY = 0x40085203
RNDRESEEDCRNG = 0x5207

TOOL_ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C"}

ORDINARY = (os.SCHED_OTHER, os.sched_param(0))
"""How everything but the agent itself is scheduled."""

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: bytes, target: bytes, *, flags: int) -> None:
    """Call mount(2) without file system type and data, as bind mounts have it."""
    no_data = ctypes.c_void_p(None)
    if _libc.mount(source, target, b"none", ctypes.c_ulong(flags), no_data) != 0:
        raise _error(target)


def set_hostname(name: bytes) -> None:
    """Call sethostname(2)."""
    if _libc.sethostname(name, len(name)) != 0:
        raise _error(name)


def lock_memory() -> None:
    """Call mlockall(2): what this process has and will have stays in memory, if it may."""
    _libc.mlockall(MCL_CURRENT | MCL_FUTURE)


def _error(name: bytes) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), name)


def add_entropy(device: int, seed: bytes) -> None:
    """Mix ``seed`` into the kernel's pool and count all its bits."""
    fcntl.ioctl(device, RNDADDENTROPY, struct.pack("ii", len(seed) * 8, len(seed)) + seed)


def reseed(device: int) -> None:
    """Make the kernel's generator take from its pool now; since Linux 4.17."""
    fcntl.ioctl(device, RNDRESEEDCRNG)


def run_tool(argv: Sequence[str], *, timeout_s: float) -> tuple[int, bytes]:
    """Run a program of the guest; give its exit status (127: missing) and standard output."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    actions = [
        (os.POSIX_SPAWN_DUP2, nothing, 0),
        (os.POSIX_SPAWN_DUP2, writer, 1),
        (os.POSIX_SPAWN_DUP2, nothing, 2),
    ]
    try:
        pid = os.posix_spawnp(
            argv[0], list(argv), TOOL_ENV, file_actions=actions, scheduler=ORDINARY
        )
    except OSError:
        os.close(reader)
        return 127, b""
    finally:
        os.close(writer)
        os.close(nothing)
    try:
        return _outcome(pid, reader, time.monotonic() + timeout_s)
    finally:
        os.close(reader)


def _outcome(pid: int, reader: int, deadline: float) -> tuple[int, bytes]:
    told = b""
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0:
        # A daemon that it left may hold the pipe: its own end counts, not the pipe's.
        if poll.poll(min(left, 0.05) * 1000):
            data = os.read(reader, 65536)
            told += data
            if data:
                continue
            poll.unregister(reader)
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status), told
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return 124, told
