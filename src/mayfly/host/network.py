"""Connects a machine's network card; what serves it lives as long as the machine's QEMU.

Not as long as the service: that one may be restarted while the machine is at work.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mayfly.engine.machine import Machine
from mayfly.engine.network.attach import NOBODY, NetworkPlan, start_network
from mayfly.engine.network.netns import Ids
from mayfly.errors import Failed, Unavailable
from mayfly.host import protocol
from mayfly.host.loop import Wait
from mayfly.host.qemu import replied
from mayfly.host.work import Channel, Step, begin
from mayfly.model import NetworkMode

BUILD_LIMIT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """What the guest and its job are told of the network."""

    guest: Mapping[str, Any] | None = None
    env: Mapping[str, str] | None = None


def connect(machine: Machine, plan: NetworkPlan) -> Step[Connected]:
    """Give the machine the network that was asked for; raises what ``start_network`` does."""
    if plan.mode is NetworkMode.NONE:
        return Connected()
    handle, ids = machine.process.handle, ids_of(machine)
    child = begin(
        lambda channel: _serve(Channel(socket=channel), plan, ids, handle),
        name="network",
        keep=[handle],
    )
    channel = child.channel
    try:
        if (yield Wait(fds=(channel.fileno(),), seconds=BUILD_LIMIT_S)) is None:
            child.kill()
            raise Unavailable(f"the network was not made within {BUILD_LIMIT_S:g} s")
        got = protocol.receive(channel)
        if got is None:
            raise Failed("the network's process ended without a word")
        words, fds = got
        if "kind" in words:
            raise protocol.error_of(words)
        try:
            yield from _plug(machine, fds[0])
        finally:
            for fd in fds:
                os.close(fd)
        _let_stay(channel)
        return Connected(guest=words["guest"], env=words["env"])
    finally:
        channel.close()


def ids_of(machine: Machine) -> Ids:
    """Give whom the helpers of a machine's network become: the machine's own user.

    As nobody they would share a user with those of all other machines.
    """
    uid = machine.record.uid
    return NOBODY if uid is None else Ids(uid=uid, gid=uid)


def _let_stay(channel: socket.socket) -> None:
    """From here on the child waits for the end of QEMU, not for ours."""
    try:
        protocol.send(channel, {"type": "stay"})
    except OSError as error:
        raise Failed("the network's process ended when the machine was connected") from error


def _plug(machine: Machine, tap: int) -> Step[None]:
    """Connect a tap device to the hub that the card has been on since the template was made."""
    monitor = machine.process.monitor
    monitor.send("getfd", {"fdname": "tap"}, fds=[tap])
    monitor.send("netdev_add", {"type": "tap", "id": "t0", "fd": "tap"})
    monitor.send("netdev_add", {"type": "hubport", "id": "n1", "hubid": 0, "netdev": "t0"})
    for command in ("getfd", "netdev_add", "netdev_add"):
        yield from replied(monitor, command)


def _serve(channel: Channel, plan: NetworkPlan, ids: Ids, handle: int) -> None:
    """Body of the child: make the network, hand over the tap device, stay until QEMU ends."""
    with start_network(plan, ids=ids) as attachment:
        words = {"guest": attachment.guest, "env": dict(attachment.env)}
        protocol.send(channel.socket, {"type": "done", **words}, attachment.pass_fds)
        if protocol.receive(channel.socket) is None:
            return  # The service is gone, or has given the machine up.
        channel.socket.close()
        waiting = select.poll()
        waiting.register(handle, select.POLLIN)
        waiting.poll()
