"""Brings up the one network card by ioctl: nothing of the guest's own tools is needed."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from mayfly.guest.fields import Refused
from mayfly.guest.files import beneath, write_text

SIOCADDRT = 0x890B
SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
SIOCSIFADDR = 0x8916
SIOCSIFNETMASK = 0x891C
SIOCSIFMTU = 0x8922
IFF_UP = 0x1
RTF_UP = 0x1
RTF_GATEWAY = 0x2
RTF_WINDOW = 0x80
WINDOW_BYTES = 128 << 10
"""The most that a connection may have under way to this machine.

QEMU's hub takes packets from the tap device also when the guest is slower. With more than this
under way packets were lost, and a download was five times slower. Connections end close by, on the
host: the window does not bound what the host itself asks for from far away.
"""

_ADDRESS = struct.Struct("=HH4s8x")
_ROUTE = struct.Struct("@L16s16s16sHhLPhPLLH6x")
"""``struct rtentry``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What the network card is to be."""

    address: str
    prefix: int
    gateway: str
    dns: tuple[str, ...]
    mtu: int


def bring_up(network: Network, *, root: str = "/") -> None:
    """Set address, route and name servers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        _raise_card(control, "lo")
        _configure(control, find_card(), network)
    write_text(beneath(root, "/etc/resolv.conf"), resolver(network.dns))


def resolver(servers: Sequence[str]) -> str:
    """Make the content of resolv.conf."""
    return "".join(f"nameserver {server}\n" for server in servers)


def find_card(folder: str = "/sys/class/net") -> str:
    """Give the name of the network card: the first that is a device."""
    for name in sorted(os.listdir(folder)):
        if name != "lo" and os.path.exists(f"{folder}/{name}/device"):
            return name
    raise Refused("this machine has no network card")


def _configure(control: socket.socket, card: str, network: Network) -> None:
    netmask = socket.inet_ntoa(struct.pack(">I", netmask_of(network.prefix)))
    if network.mtu:
        fcntl.ioctl(control, SIOCSIFMTU, struct.pack("=16si12x", card.encode(), network.mtu))
    fcntl.ioctl(control, SIOCSIFADDR, _named(card, network.address))
    fcntl.ioctl(control, SIOCSIFNETMASK, _named(card, netmask))
    _raise_card(control, card)
    if network.gateway:
        _route(control, network.gateway)


def netmask_of(prefix: int) -> int:
    """Give the netmask of a prefix length as a number."""
    return (0xFFFFFFFF << (32 - prefix)) & 0xFFFFFFFF


def _raise_card(control: socket.socket, card: str) -> None:
    name = card.encode()
    found = fcntl.ioctl(control, SIOCGIFFLAGS, struct.pack("=16sh14x", name, 0))
    (flags,) = struct.unpack_from("=h", found, 16)
    fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("=16sh14x", name, flags | IFF_UP))


def _route(control: socket.socket, gateway: str) -> None:
    anywhere = _address("0.0.0.0")  # noqa: S104 - no listener: the default route
    flags = RTF_UP | RTF_GATEWAY | RTF_WINDOW
    fields = (0, anywhere, _address(gateway), anywhere, flags, 0, 0, 0, 0, 0, 0, WINDOW_BYTES, 0)
    try:
        fcntl.ioctl(control, SIOCADDRT, _ROUTE.pack(*fields))
    except OSError as error:
        if error.errno != errno.EEXIST:
            raise


def _named(card: str, address: str) -> bytes:
    return struct.pack("=16s16s", card.encode(), _address(address))


def _address(address: str) -> bytes:
    return _ADDRESS.pack(socket.AF_INET, 0, socket.inet_aton(address))
