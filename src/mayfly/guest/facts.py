"""What the agent tells of itself and of the machine it finds itself in."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from mayfly.guest.files import beneath, read_text
from mayfly.guest.framing import PROTOCOL
from mayfly.guest.settle import NO_INIT

AGENT = "0.1.0"
PROTOCOL_MIN = 1
ABILITIES = ("refresh", "machine-features", "strip", "context")
"""What agents of the same protocol learnt later: a host looks before it asks."""
SSHD_PLACES = ("/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd")


def hello(*, sshfs: Sequence[str], root: str = "/") -> dict[str, Any]:
    """Make the first message of a control conversation."""
    return {
        "type": "hello",
        "protocol": PROTOCOL,
        "protocol_min": PROTOCOL_MIN,
        "agent": AGENT,
        "kernel": os.uname().release,
        "os": os_name(root),
        "init": init_name(root),
        "features": features(sshfs=sshfs, root=root),
    }


def os_name(root: str = "/") -> str:
    """Give distribution and version, such as ``debian 12``."""
    found = dict(_assignments(read_text(beneath(root, "/etc/os-release"))))
    name = f"{found.get('ID', '')} {found.get('VERSION_ID', '')}".strip()
    return name or read_text(beneath(root, "/etc/redhat-release")).strip() or "linux"


def _assignments(text: str) -> list[tuple[str, str]]:
    pairs = [line.partition("=") for line in text.splitlines() if "=" in line]
    return [(key.strip(), value.strip().strip("\"'")) for key, _, value in pairs]


def init_name(root: str = "/") -> str:
    """Give the name of what started the machine: systemd, sysvinit, mayfly, or its process 1."""
    if os.path.isdir(beneath(root, "/run/systemd/system")):
        return "systemd"
    if os.path.isdir(beneath(root, NO_INIT)):
        return "mayfly"
    first = read_text(beneath(root, "/proc/1/comm")).strip() or "unknown"
    if first == "init" and os.path.exists(beneath(root, "/etc/inittab")):
        return "sysvinit"
    return first


def features(*, sshfs: Sequence[str], root: str = "/") -> list[str]:
    """List what not every machine, or not every agent, has."""
    found = list(ABILITIES)
    if any(os.path.exists(beneath(root, place)) for place in SSHD_PLACES):
        found.append("sshd")
    if _may_have_fuse(root):
        found.append("fuse")
        if sshfs:
            found.append("sshfs")
    return found


def _may_have_fuse(root: str) -> bool:
    if os.path.exists(beneath(root, "/sys/fs/fuse")):
        return True
    modules = f"/lib/modules/{os.uname().release}"
    lists = ("modules.dep", "modules.builtin")
    return any("/fuse.ko" in read_text(beneath(root, f"{modules}/{name}")) for name in lists)
