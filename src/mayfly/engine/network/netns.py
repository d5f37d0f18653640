"""A network namespace around one machine, made by a forked child: tap device, rules, uplink.

    guest 10.0.2.15 -- tap "guest" 10.0.2.2 [rules] 10.0.3.2 "uplink" -- pasta -- the host's sockets

The tap device and the proxy's listening socket reach the maker as descriptors. Nothing is named in
the file system and nothing is seen in the host's own network: when the last descriptor is closed,
the kernel takes the namespace away.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

from mayfly.command import run
from mayfly.engine import linux
from mayfly.engine.forked import Forked, forked, receive, report, wait_for_end
from mayfly.engine.network.rules import DNS_ADDRESS, GUEST, UPLINK
from mayfly.engine.privileges import drop_capabilities, map_own_ids, show_in_proc, unshare
from mayfly.errors import Failed, Unavailable

TUN = "/dev/net/tun"
GATEWAY = "10.0.2.2"
GATEWAY_MAC = bytes.fromhex("5254006d6602")
"""The same for each: a machine that was suspended remembers it, and gets another tap device."""
NETMASK = "255.255.255.0"
PROXY_PORT = 3128
UPLINK_ADDRESS = "10.0.3.2"
UPLINK_GATEWAY = "10.0.3.1"
TOOL_LIMIT_S = 20.0

_TUNSETIFF = 0x400454CA
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_SIOCSIFFLAGS = 0x8914
_SIOCSIFADDR = 0x8916
_SIOCSIFNETMASK = 0x891C
_SIOCSIFHWADDR = 0x8924
_ARPHRD_ETHER = 1
_IFF_UP = 1

_SYSCTLS = {
    "ipv6/conf/all/disable_ipv6": "1",
    "ipv6/conf/default/disable_ipv6": "1",
    "ipv4/conf/all/route_localnet": "0",
    "ipv4/conf/default/route_localnet": "0",
    # Else only a few refusals are answered at once, then one in each second.
    "ipv4/icmp_ratelimit": "0",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ids:
    """The user of the host that helper processes become when root starts them."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Blueprint:
    """What to build."""

    nft: str = ""
    """Path of nft; "" when there are no rules."""
    rules: str = ""
    pasta: str = ""
    """Path of pasta; "" when there is no way out."""
    listen: bool = False
    """Whether a socket for the proxy is wanted."""
    ids: Ids | None = None
    """Given when root builds a namespace with an uplink."""


def pasta_argv(pasta: str, namespace: str) -> list[str]:
    """Give pasta's arguments: out to the world, never to the host's loopback, nothing inwards."""
    return [
        pasta,
        *("--quiet", "--ipv4-only", "--config-net", "--no-dhcp"),
        # Its defaults: the gateway's address leads to the host, ports are forwarded both ways.
        "--no-map-gw",
        *("--tcp-ports", "none", "--udp-ports", "none", "--tcp-ns", "none", "--udp-ns", "none"),
        *("--ns-ifname", UPLINK, "--address", UPLINK_ADDRESS, "--netmask", "24"),
        *("--gateway", UPLINK_GATEWAY, "--dns-forward", DNS_ADDRESS),
        # It is in the right user namespace already.
        *("--netns-only", "--netns", namespace),
    ]


def admit(child: Forked, ids: Ids) -> None:
    """Answer a child of root that asks to be ``ids`` in its new user namespace."""
    child.receive()
    Path(f"/proc/{child.pid}/gid_map").write_text(f"0 {ids.gid} 1")
    Path(f"/proc/{child.pid}/uid_map").write_text(f"0 {ids.uid} 1")
    report(child.channel)


def build(channel: socket.socket, blueprint: Blueprint) -> None:
    """Build the namespace and send its descriptors: tap, then listening socket if wanted.

    The body of a forked child. With an uplink it stays until the maker ends it.
    """
    if blueprint.ids is not None or os.geteuid() != 0:
        _enter_user_namespace(channel, blueprint.ids)
    if not blueprint.pasta:
        report(channel, _build_inside(blueprint))
        return
    # Forked before this process leaves the host's network, in which pasta's sockets must be.
    with forked(lambda inner: _serve_uplink(inner, blueprint.pasta), name="uplink") as uplink:
        fds = _build_inside(blueprint)
        # With no capabilities left here, pasta may look up this process's namespace.
        drop_capabilities()
        show_in_proc()
        uplink.channel.send(str(os.getpid()).encode())
        uplink.receive()
        report(channel, fds)
        wait_for_end(channel)


def _enter_user_namespace(channel: socket.socket, ids: Ids | None) -> None:
    uid, gid = os.geteuid(), os.getegid()
    if ids is not None:
        os.setgroups([])
        _offer_tun(ids)
    # In the pid namespace the uplink is process 1: whatever ends it ends pasta with it.
    unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWPID)
    if ids is None:
        map_own_ids(uid, gid, inside_uid=0, inside_gid=0)
    else:
        report(channel)
        receive(channel)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _offer_tun(ids: Ids) -> None:
    """Let ``ids`` open the tun device, where only root may, by a node that nobody else sees."""
    if os.stat(TUN).st_mode & 0o006 == 0o006:
        return
    unshare(linux.CLONE_NEWNS)
    linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
    device = os.stat(TUN).st_rdev
    directory = os.path.dirname(TUN)
    linux.mount("tmpfs", directory, "tmpfs", linux.MS_NOSUID | linux.MS_NOEXEC, "size=4k,mode=755")
    os.mknod(TUN, stat.S_IFCHR | 0o600, device)
    os.chown(TUN, ids.uid, ids.gid)


def _serve_uplink(channel: socket.socket, pasta: str) -> None:
    """Run pasta for the namespace of the process named in the first message, until the end."""
    pid = channel.recv(20).decode()
    if not pid:
        return
    try:
        # It goes to the background when the uplink is ready.
        run(pasta_argv(pasta, f"/proc/{pid}/ns/net"), timeout_s=TOOL_LIMIT_S, env={})
    except Failed as error:
        raise Unavailable(
            f"the way out of the machine's network cannot be made: {error.message}",
            hint="the host needs an IPv4 default route; 'mayfly doctor' tries it",
        ) from error
    report(channel)
    wait_for_end(channel)


def _build_inside(blueprint: Blueprint) -> list[int]:
    unshare(linux.CLONE_NEWNET)
    forward = "1" if blueprint.pasta else "0"
    for name, value in {**_SYSCTLS, "ipv4/ip_forward": forward}.items():
        _write_sysctl(name, value)
    if blueprint.rules:
        _load_rules(blueprint)
    fds = [open_tap(GUEST)]
    set_address(GUEST, GATEWAY)
    if blueprint.listen:
        fds.append(_listen())
    return fds


def _write_sysctl(name: str, value: str) -> None:
    file = Path("/proc/sys/net", name)
    try:
        file.write_text(value)
    except FileNotFoundError:
        # A kernel without IPv6 has nothing to switch off.
        if not name.startswith("ipv6/"):
            raise
    except OSError as error:
        raise Unavailable(
            f"cannot write {file}: {error.strerror}",
            hint="inside a container: run Mayfly outside of it",
        ) from error


def _load_rules(blueprint: Blueprint) -> None:
    argv = [blueprint.nft, "--file", "-"]
    try:
        run(argv, timeout_s=TOOL_LIMIT_S, stdin=blueprint.rules.encode(), env={})
    except Failed as error:
        raise Unavailable(
            f"the rules of an open network cannot be enforced here: {error.message}",
            hint="the kernel needs nf_tables with NAT: sudo modprobe -a nft_masq nft_reject_inet",
        ) from error


def open_tap(name: str) -> int:
    """Make a tap device in this process's network namespace; it lives as long as the descriptor."""
    tap = os.open(TUN, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    # No IFF_VNET_HDR: the machine's template was made with a card that has no offloads.
    try:
        fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
        words = struct.pack("16sH6s16x", name.encode(), _ARPHRD_ETHER, GATEWAY_MAC)
        fcntl.ioctl(tap, _SIOCSIFHWADDR, words)
    except OSError as error:
        os.close(tap)
        if error.errno != errno.EPERM:
            raise
        raise Unavailable(
            "this host lets no network device be made in a namespace",
            hint="on Ubuntu: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ) from error
    return tap


def set_address(name: str, address: str) -> None:
    """Give a network device its IPv4 address, within a /24, and switch it on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for request, text in ((_SIOCSIFADDR, address), (_SIOCSIFNETMASK, NETMASK)):
            packed = socket.inet_aton(text)
            words = struct.pack("16sHH4s8x", name.encode(), socket.AF_INET, 0, packed)
            fcntl.ioctl(control, request, words)
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", name.encode(), _IFF_UP))


def _listen() -> int:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind((GATEWAY, PROXY_PORT))
    listener.listen(64)
    return listener.detach()
