"""Clients that start networks in processes of their own: as root, and as a user with no rights."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Mapping

from mayfly.engine.forked import forked, report, wait_for_end
from mayfly.engine.network.attach import NetworkPlan, start_network
from mayfly.engine.network.netns import TUN
from mayfly.engine.privileges import become, show_in_proc
from mayfly.model import NetworkMode

OPEN = NetworkPlan(mode=NetworkMode.OPEN)
RESTRICTED = NetworkPlan(mode=NetworkMode.RESTRICTED)
UID = 54321
GUEST_OPEN: Mapping[str, object] = {
    "address": "10.0.2.15",
    "gateway": "10.0.2.2",
    "dns": ["10.0.3.3"],
}
GUEST_RESTRICTED: Mapping[str, object] = {"address": "10.0.2.15", "gateway": None, "dns": []}


def offer(channel: socket.socket, plan: NetworkPlan) -> None:
    """Start a network and hand over its tap. The end of a forked child's body."""
    with start_network(plan) as attachment:
        report(channel, attachment.pass_fds)
        wait_for_end(channel)


def plain_client(plan: NetworkPlan) -> Callable[[socket.socket], None]:
    """Give the body of a client that has no rights."""

    def client(channel: socket.socket) -> None:
        become(UID, UID)
        # A change of uid closes /proc/self to the process itself; a login's exec opens it again.
        show_in_proc()
        offer(channel, plan)

    return client


@contextlib.contextmanager
def tap_of(client: Callable[[socket.socket], None]) -> Iterator[int]:
    """Give the tap of a network that another process starts."""
    with forked(client, name="client") as child:
        (tap,) = child.receive()
        try:
            yield tap
        finally:
            os.close(tap)


@contextlib.contextmanager
def tun_mode(mode: int) -> Iterator[None]:
    before = os.stat(TUN).st_mode & 0o7777
    os.chmod(TUN, mode)
    try:
        yield
    finally:
        os.chmod(TUN, before)
