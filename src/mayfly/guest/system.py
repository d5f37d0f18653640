"""What the agent does to the running kernel, behind one seam, so that tests can do without."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from mayfly.guest import disk, linux, mounts, network
from mayfly.guest.fields import Refused
from mayfly.guest.files import write_text
from mayfly.guest.lines import SHARE, find_device
from mayfly.guest.mounts import Share
from mayfly.guest.network import Network

BOOT_ID = "/proc/sys/kernel/random/boot_id"
OUR_BOOT_ID = "/run/mayfly-boot-id"
MIX_ROUNDS = 8

Tool = Callable[..., tuple[int, bytes]]
"""Runs a program of the guest: ``tool(argv, timeout_s=N)`` gives exit status and output."""


class System(Protocol):
    """The running kernel."""

    def stir(self, seed: bytes) -> str:
        """Make the random generator this machine's own; says how: ``reseed`` or ``mix``."""

    def set_clock(self, time_ns: int) -> None:
        """Set the wall clock."""

    def set_hostname(self, name: str) -> None:
        """Set the kernel's host name."""

    def set_boot_id(self, boot_id: str) -> None:
        """Let /proc show another boot id."""

    def bring_up(self, wanted: Network) -> None:
        """Configure the network card."""

    def mount_shares(self, shares: Sequence[Share], make: Callable[[bytes], None]) -> None:
        """Mount directories of the host; ``make(path)`` makes a mount point."""

    def grow_root(self) -> None:
        """Let the root file system fill its disk."""


class Linux:
    """The real one."""

    def __init__(self, *, sshfs: Sequence[str] = (), share_port: str = "") -> None:
        self._sshfs = sshfs
        self._share_port = share_port

    def stir(self, seed: bytes) -> str:
        """Make the random generator this machine's own; says how: ``reseed`` or ``mix``."""
        device = os.open("/dev/urandom", os.O_RDWR | os.O_CLOEXEC)
        try:
            linux.add_entropy(device, seed)
            try:
                linux.reseed(device)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOTTY):
                    raise
                _mix(device, seed)
                return "mix"
        finally:
            os.close(device)
        return "reseed"

    def set_clock(self, time_ns: int) -> None:
        """Set the wall clock."""
        time.clock_settime_ns(time.CLOCK_REALTIME, time_ns)

    def set_hostname(self, name: str) -> None:
        """Set the kernel's host name."""
        linux.set_hostname(name.encode())

    def set_boot_id(self, boot_id: str) -> None:
        """Let /proc show another boot id."""
        if _is_mounted(BOOT_ID):
            # A second time: what is mounted there is our file.
            with open(OUR_BOOT_ID, "w") as file:
                file.write(boot_id + "\n")
        else:
            write_text(OUR_BOOT_ID, boot_id + "\n", mode=0o444)
            linux.mount(OUR_BOOT_ID.encode(), BOOT_ID.encode(), flags=linux.MS_BIND)
        with open(BOOT_ID) as file:
            if file.read().strip() != boot_id:
                raise OSError(errno.EIO, "the boot id did not change", BOOT_ID)

    def bring_up(self, wanted: Network) -> None:
        """Configure the network card."""
        network.bring_up(wanted)

    def mount_shares(self, shares: Sequence[Share], make: Callable[[bytes], None]) -> None:
        """Mount directories of the host; ``make(path)`` makes a mount point."""
        port = self._share_port or find_device(SHARE)
        if port is None:
            raise Refused("this machine has no port for shared directories")
        mounts.mount_shares(shares, sshfs=self._sshfs, port=port, make=make)

    def grow_root(self) -> None:
        """Let the root file system fill its disk."""
        disk.grow_root()


def _mix(device: int, seed: bytes) -> None:
    """Reseed as far as kernels before 4.17 let us: the host judges by comparing machines."""
    for turn in range(MIX_ROUNDS):
        piece = seed[turn:] + seed[:turn]
        # Before 4.8 a write goes straight into the pool that urandom draws from.
        os.write(device, piece)
        linux.add_entropy(device, piece)
        os.read(device, 32)


def _is_mounted(path: str) -> bool:
    with open("/proc/self/mountinfo") as file:
        return any(line.split(" ")[4] == path for line in file)


class Pretence:
    """A stand-in that leaves the kernel alone: for trying the agent outside of a machine."""

    def stir(self, seed: bytes) -> str:
        """Do nothing."""
        return "reseed" if seed else "mix"

    def set_clock(self, time_ns: int) -> None:
        """Do nothing."""

    def set_hostname(self, name: str) -> None:
        """Do nothing."""

    def set_boot_id(self, boot_id: str) -> None:
        """Do nothing."""

    def bring_up(self, wanted: Network) -> None:
        """Do nothing."""

    def mount_shares(self, shares: Sequence[Share], make: Callable[[bytes], None]) -> None:
        """Make the mount points."""
        for share in shares:
            make(share.path)

    def grow_root(self) -> None:
        """Do nothing."""


def no_tool(argv: Sequence[str], *, timeout_s: float) -> tuple[int, bytes]:
    """Run nothing, as in a guest without tools."""
    del argv, timeout_s
    return 127, b""
