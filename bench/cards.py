"""The networks that a machine could have, each with a server of iperf3 that it reaches."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.client import BenchError, Children
from mayfly.engine import linux
from mayfly.engine.forked import forked, report, wait_for_end
from mayfly.engine.network.attach import NetworkPlan, start_network
from mayfly.engine.network.netns import GATEWAY, TUN, set_address
from mayfly.engine.network.rules import GUEST, GUEST_ADDRESS
from mayfly.engine.privileges import unshare
from mayfly.model import NetworkMode

SERVER = "203.0.113.2"
"""Of the addresses for documentation (RFC 5737): nobody has it, and no machine is refused it."""
HOST_END = "203.0.113.1"
PORT = 5201
LISTEN_LIMIT_S = 20.0
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What is behind a card, from QEMU's side and from the guest's."""

    netdev: str
    """QEMU's option, but for the id, which is its last word."""
    fds: tuple[int, ...] = ()
    address: str
    gateway: str = ""
    """Empty: the server is a neighbour."""
    server: str = SERVER


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One card to be measured."""

    key: str
    text: str
    start: Callable[[Children, Path], contextlib.AbstractContextManager[Network]]
    device: str = "virtio-net-pci"


@contextlib.contextmanager
def outside() -> Iterator[str]:
    """Run a server beyond this host's own addresses, as a machine sees the world; gives it."""
    if os.geteuid() != 0:
        raise BenchError("only root can make the network that the server is in")
    for program, package in (("iperf3", "iperf3"), ("ip", "iproute2")):
        if shutil.which(program) is None:
            raise BenchError(f"no {program}: apt-get install {package}")
    with forked(_serve_outside, name="iperf3") as child:
        child.receive()
        end = f"mfb{os.getpid()}"
        _ip("link", "add", end, "type", "veth", "peer", "name", "outside", "netns", str(child.pid))
        try:
            _ip("address", "add", f"{HOST_END}/30", "dev", end)
            _ip("link", "set", end, "up")
            report(child.channel)
            child.receive()
            yield SERVER
        finally:
            # Its peer goes with it.
            _ip("link", "delete", end)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def _serve_outside(channel: socket.socket) -> None:
    unshare(linux.CLONE_NEWNET)
    report(channel)
    channel.recv(100)
    _ip("address", "add", f"{SERVER}/30", "dev", "outside")
    _ip("link", "set", "outside", "up")
    _ip("link", "set", "lo", "up")
    _serve(channel, SERVER, [])


def _serve(channel: socket.socket, address: str, fds: Sequence[int]) -> None:
    """Run iperf3 until our maker is done, and tell when it listens."""
    words = ["iperf3", "--server", "--bind", address, "--port", str(PORT)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as server:
        try:
            _await_listener(server, address)
            report(channel, fds)
            wait_for_end(channel)
        finally:
            server.send_signal(signal.SIGKILL)


def _await_listener(server: subprocess.Popen[bytes], address: str) -> None:
    # Looked up, not tried: a connection that says nothing would keep the server busy.
    wanted = (
        f"{int.from_bytes(socket.inet_aton(address), 'little'):08X}:{PORT:04X} 00000000:0000 0A"
    )
    deadline = time.monotonic() + LISTEN_LIMIT_S
    while wanted not in Path("/proc/self/net/tcp").read_text():
        if server.poll() is not None or time.monotonic() > deadline:
            raise OSError(f"iperf3 does not listen at {address}")
        time.sleep(0.01)


# --- what is measured ----------------------------------------------------------------------------


@contextlib.contextmanager
def open_network(_: Children, __: Path) -> Iterator[Network]:
    """Give ours: a tap device in a namespace with packet rules, and pasta to the outside."""
    with start_network(NetworkPlan(mode=NetworkMode.OPEN)) as attachment:
        (fd,) = attachment.pass_fds
        yield Network(netdev=f"tap,fd={fd}", fds=(fd,), address=GUEST_ADDRESS, gateway=GATEWAY)


@contextlib.contextmanager
def bare_tap(flags: int = 0) -> Iterator[Network]:
    """Give a tap device in a namespace in which the server is."""

    def body(channel: socket.socket) -> None:
        unshare(linux.CLONE_NEWNET)
        tap = os.open(TUN, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        request = struct.pack("16sH22x", GUEST.encode(), _IFF_TAP | _IFF_NO_PI | flags)
        fcntl.ioctl(tap, _TUNSETIFF, request)
        set_address(GUEST, GATEWAY)
        _serve(channel, GATEWAY, [tap])

    with forked(body, name="tap") as child:
        (fd,) = child.receive()
        try:
            yield Network(netdev=f"tap,fd={fd}", fds=(fd,), address=GUEST_ADDRESS, server=GATEWAY)
        finally:
            os.close(fd)


@contextlib.contextmanager
def passt(children: Children, place: Path) -> Iterator[Network]:
    """Give passt, which speaks to QEMU over a socket."""
    path = place / "passt"
    words = ["passt", "--foreground", "--quiet", "--ipv4-only", "--socket", str(path)]
    words += ["--address", "10.0.4.15", "--netmask", "24", "--gateway", "10.0.4.2"]
    words += ["--runas", "0"] if os.stat(place).st_mode & 0o001 == 0 else []
    child = children.start([*words, "--no-map-gw"], bare=True)
    deadline = time.monotonic() + LISTEN_LIMIT_S
    while not path.exists():
        if child.process.poll() is not None or time.monotonic() > deadline:
            raise BenchError(f"passt does not listen: {child.complained()}")
        time.sleep(0.01)
    try:
        netdev = f"stream,server=off,addr.type=unix,addr.path={path}"
        yield Network(netdev=netdev, address="10.0.4.15", gateway="10.0.4.2")
    finally:
        children.stop(child)


@contextlib.contextmanager
def slirp(_: Children, __: Path) -> Iterator[Network]:
    """Give QEMU's own network in user space."""
    netdev = "user,net=10.0.5.0/24,dhcpstart=10.0.5.15,ipv6=off"
    yield Network(netdev=netdev, address="10.0.5.15", gateway="10.0.5.2")


CARDS = (
    Card(key="open", text="virtio-net, tap in a namespace with rules, pasta", start=open_network),
    Card(key="tap", text="virtio-net, tap, server beside it", start=lambda *_: bare_tap()),
    Card(
        key="tap_offload",
        text="virtio-net, tap with offloads, server beside it",
        start=lambda *_: bare_tap(_IFF_VNET_HDR),
    ),
    Card(key="passt", text="virtio-net, passt", start=passt),
    Card(key="slirp", text="virtio-net, QEMU's user network (slirp)", start=slirp),
    Card(
        key="e1000",
        text="e1000 (emulated), tap, server beside it",
        start=lambda *_: bare_tap(),
        device="e1000",
    ),
)


def card_argv(cards: Sequence[tuple[Card, Network]]) -> list[str]:
    """Give the part of a QEMU line that has these cards."""
    words: list[str] = []
    for number, (card, network) in enumerate(cards):
        words += ["-netdev", f"{network.netdev},id=bench{number}"]
        words += ["-device", f"{card.device},netdev=bench{number},mac={mac(number)},romfile="]
    return words


def mac(number: int) -> str:
    """Give the hardware address of a card."""
    return f"52:54:00:6d:66:{number:02x}"


def up_script(number: int, network: Network) -> str:
    """Write the script that switches one card on and all others off, and waits for the server."""
    device = f"""
for card in /sys/class/net/*; do
    name=${{card##*/}}
    [ "$name" = lo ] && continue
    ip address flush dev "$name"
    ip link set "$name" down
    [ "$(cat "$card/address")" = {mac(number)} ] && device=$name
done
ip link set "$device" up
ip address add {network.address}/24 dev "$device"
"""
    route = f'ip route replace {network.server} via {network.gateway} dev "$device"\n'
    probe = f"iperf3 --client {network.server} --bytes 1K >/dev/null 2>&1"
    wait = f"for _ in $(seq 40); do {probe} && exit 0; sleep 0.25; done; {probe}\n"
    return device + (route if network.gateway else "") + wait
