"""The few Linux calls that Python's standard library has not, through the C library."""

from __future__ import annotations

import ctypes
import os
import re
import signal

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

_SYS_CLONE = 56
_SYS_PIVOT_ROOT = 155
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)


def checked(result: int, what: str) -> int:
    """Give what a C function returned; raises ``OSError`` with its errno when that is negative."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def fork_into(flags: int) -> int:
    """Fork, the child being in new namespaces; gives 0 in the child, its pid in the parent.

    Only for a process without other threads, and the child must soon exec: Python's own
    fork hooks do not run.
    """
    # PyDLL: the interpreter lock stays held, so that the child has it.
    result = ctypes.PyDLL(None, use_errno=True).syscall(
        ctypes.c_long(_SYS_CLONE),
        ctypes.c_ulong(flags | signal.SIGCHLD),
        ctypes.c_long(0),
        ctypes.c_long(0),
        ctypes.c_long(0),
        ctypes.c_long(0),
    )
    return checked(int(result), "clone")


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """mount(2)."""
    done = _libc.mount(
        source.encode(), target.encode(), kind.encode(), flags, data.encode() or None
    )
    checked(done, f"mount {source} on {target}")


def mounted_beneath(top: str) -> list[str]:
    """Give what is mounted beneath a path, outer ones first (proc(5), mountinfo)."""
    with open("/proc/self/mountinfo", "rb") as file:
        points = [re.sub(rb"\\(\d{3})", _octal, line.split()[4]) for line in file]
    return [os.fsdecode(point) for point in points if point.startswith(os.fsencode(top) + b"/")]


def _octal(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1], 8)])


def unmount(target: str) -> None:
    """umount2(2), lazily."""
    checked(_libc.umount2(target.encode(), MNT_DETACH), f"umount {target}")


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2)."""
    done = _libc.syscall(
        ctypes.c_long(_SYS_PIVOT_ROOT), ctypes.c_char_p(new.encode()), ctypes.c_char_p(old.encode())
    )
    checked(done, "pivot_root")


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that made it ends."""
    checked(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl(PDEATHSIG)")


def no_new_privileges() -> None:
    """Let no exec from here on gain rights."""
    checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(NO_NEW_PRIVS)")


def start_time(pid: int) -> int | None:
    """Give when a process started, in clock ticks since boot, or None when there is none.

    A pid alone names nobody: it is used again. Pid and start time together do (proc(5), field 22).
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(b")") + 2 :].split()
    if fields[0] in (b"Z", b"X"):
        return None
    return int(fields[19])
