"""Finds and opens what a port is made of: a virtio-serial device, or a stand-in for tests."""

from __future__ import annotations

import os
import socket
import stat
import time
from dataclasses import dataclass
from enum import Enum

CONTROL = "org.mayfly.control"
SESSION = "org.mayfly.session"
SHARE = "org.mayfly.share"

DEVICES = "/dev/virtio-ports"
SYSFS = "/sys/class/virtio-ports"


class Sort(Enum):
    """What a line is, which decides what the end of its input means."""

    DEVICE = "device"
    """The host went away; the same descriptor speaks again when it is back."""
    SOCKET = "socket"
    """The peer went away; connect again."""
    FD = "fd"
    """The end."""
    VISIT = "visit"
    """A device that was added for one conversation: after it, the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One way to the host, not opened yet."""

    sort: Sort
    path: str = ""
    fd: int = -1

    def open(self) -> int:
        """Give a non-blocking descriptor; for a socket the one try may fail."""
        if self.sort in (Sort.DEVICE, Sort.VISIT):
            return os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        if self.sort is Sort.SOCKET:
            return _connect(self.path)
        os.set_blocking(self.fd, False)
        os.set_inheritable(self.fd, False)
        return self.fd


def _connect(path: str) -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(path)
        connection.setblocking(False)
        return connection.detach()


def line_at(path: str) -> Line:
    """Give the line that a path names."""
    is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
    return Line(sort=Sort.SOCKET if is_socket else Sort.DEVICE, path=path)


def find_device(name: str, *, node_folder: str = "/run") -> str | None:
    """Give the device of the virtio port ``name``; makes a node where there is no udev."""
    path = f"{DEVICES}/{name}"
    if os.path.exists(path):
        return path
    port = _find_port(name)
    if port is None:
        return None
    path = f"/dev/{port}"
    if not os.path.exists(path):
        path = f"{node_folder}/mayfly-{port}"
        if not os.path.exists(path):
            os.mknod(path, 0o600 | stat.S_IFCHR, _device_number(port))
    return path


def _find_port(name: str) -> str | None:
    try:
        ports = os.listdir(SYSFS)
    except FileNotFoundError:
        return None
    for port in ports:
        try:
            with open(f"{SYSFS}/{port}/name") as file:
                if file.read().strip() == name:
                    return port
        except OSError:
            continue
    return None


def _device_number(port: str) -> int:
    with open(f"{SYSFS}/{port}/dev") as file:
        major, minor = file.read().strip().split(":")
    return os.makedev(int(major), int(minor))


def wait_for_device(name: str, *, timeout_s: float) -> str | None:
    """Wait until the port is there: the agent may be started before its driver."""
    deadline = time.monotonic() + timeout_s
    while (path := find_device(name)) is None and time.monotonic() < deadline:
        time.sleep(0.1)
    return path
