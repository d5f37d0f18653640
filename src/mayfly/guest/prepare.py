"""Makes a settled machine ready to be frozen: nothing secret in it, nothing about to go off."""

from __future__ import annotations

import contextlib
import glob
import os

from mayfly.guest.files import beneath
from mayfly.guest.system import Tool

SSH_UNITS = ("ssh.service", "sshd.service", "ssh.socket", "sshd.socket")
TIMERS = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
    "logrotate.timer",
    "man-db.timer",
    "systemd-tmpfiles-clean.timer",
)
SECRETS = (
    "/etc/ssh/ssh_host_*",
    "/var/lib/systemd/random-seed",
    "/var/lib/urandom/random-seed",
    "/var/lib/systemd/credential.secret",
)
PANIC_TIMEOUT = "/proc/sys/kernel/panic"
TOOL_S = 60.0


def prepare(tool: Tool, *, root: str = "/", fuse: bool) -> bytes:
    """Stop what must not run in a clone, delete what must not be shared, sync: an assistant."""
    if os.path.isdir(beneath(root, "/run/systemd/system")):
        tool(["systemctl", "stop", *SSH_UNITS], timeout_s=TOOL_S)
        # A clone's clock jumps ahead: every timer that is overdue would go off at once.
        tool(["systemctl", "mask", "--now", *TIMERS], timeout_s=TOOL_S)
    else:
        _ssh_script("stop", tool, root)
    if fuse:
        tool(["modprobe", "fuse"], timeout_s=TOOL_S)
    # A panic shall end the machine, which the host sees, not hang it with its CPU spinning.
    with contextlib.suppress(OSError), open(beneath(root, PANIC_TIMEOUT), "r+") as file:
        file.write("-1")
    for pattern in SECRETS:
        for path in glob.glob(beneath(glob.escape(root), pattern)):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
    os.sync()
    return b""


def start_sshd(tool: Tool, *, root: str = "/") -> bytes:
    """Start the ssh server, once it has a key of its own: an assistant."""
    if os.path.isdir(beneath(root, "/run/systemd/system")):
        tool(["systemctl", "--no-block", "start", *SSH_UNITS[:2]], timeout_s=TOOL_S)
    else:
        _ssh_script("start", tool, root)
    return b""


def _ssh_script(verb: str, tool: Tool, root: str) -> None:
    for script in ("ssh", "sshd"):
        path = beneath(root, f"/etc/init.d/{script}")
        if os.path.exists(path):
            tool([path, verb], timeout_s=TOOL_S)
