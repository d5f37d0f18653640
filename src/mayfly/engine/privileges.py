"""What a helper process takes (namespaces) and gives up (rights) before it works."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

from mayfly.engine import linux
from mayfly.errors import Unavailable

CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_FSETID = range(5)

_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)

USER_NAMESPACES = {
    "kernel/unprivileged_userns_clone": ("0", "1"),
    "kernel/apparmor_restrict_unprivileged_userns": ("1", "0"),
    "user/max_user_namespaces": ("0", "15000"),
}
"""Settings that can forbid user namespaces: the value that does, and one that does not."""


def unshare(flags: int) -> None:
    """unshare(2); raises ``Unavailable`` when this host does not let the caller."""
    try:
        linux.checked(_libc.unshare(flags), "unshare")
    except OSError as error:
        raise Unavailable(
            f"this host lets no new namespaces be made: {os.strerror(error.errno or 0)}",
            hint=namespace_hint(Path("/proc/sys")),
        ) from error


def namespace_hint(sysctls: Path) -> str:
    """Give the command that permits user namespaces, judged by the kernel's settings."""
    for name, (forbids, permits) in USER_NAMESPACES.items():
        file = sysctls / name
        if file.exists() and file.read_text().strip() == forbids:
            return f"sudo sysctl -w {name.replace('/', '.')}={permits}"
    return "inside a container: run Mayfly outside of it, or as root"


def map_own_ids(uid: int, gid: int, *, inside_uid: int, inside_gid: int) -> None:
    """Let this process, new in its user namespace, be one user there; ids are those before it."""
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{inside_uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{inside_gid} {gid} 1")


def drop_capabilities() -> None:
    """Give up every capability of this process."""
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    linux.checked(_libc.capset(header, bytes(24)), "capset")


def limit_capabilities(keep: frozenset[int]) -> None:
    """Let what this process will exec have no other capabilities than these, even as root."""
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    for number in set(range(last + 1)) - keep:
        linux.checked(_libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0), "prctl(CAPBSET_DROP)")


def show_in_proc() -> None:
    """Let processes of the same uid use /proc/PID/ns of this one, which a change of uid forbids."""
    linux.checked(_libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0), "prctl(DUMPABLE)")


def become(uid: int, gid: int, groups: tuple[int, ...] = ()) -> None:
    """Become another user for good; only for root."""
    os.setgroups(list(groups))
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    linux.no_new_privileges()
