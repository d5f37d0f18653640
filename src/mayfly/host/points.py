"""Points in a machine's life to go back to, and other long work with a machine that runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mayfly.engine.machine import Machine
from mayfly.engine.reattach import handles, rebuild
from mayfly.engine.snapshots import list_snapshots, revert_to, save_snapshot
from mayfly.errors import Conflict, Failed
from mayfly.host.caller import Caller
from mayfly.host.machines import as_item
from mayfly.host.operations import ready
from mayfly.host.state import Hosted, Service
from mayfly.host.watching import end, let_go, occupied
from mayfly.host.wish import text_of
from mayfly.host.work import Channel, Step, work
from mayfly.model import State

Message = dict[str, Any]
WORK_LIMIT_S = 600.0


def snapshot(service: Service, caller: Caller, message: Message) -> Step[None]:
    """Remember a machine as it is now."""
    hosted = yield from ready(service, caller, message, State.RUNNING, State.PAUSED)
    name = text_of(message, "point", 40)
    yield from _act(service, hosted, "taking a snapshot", lambda one: save_snapshot(one, name))
    service.logs.event(hosted.id, f"snapshot '{name}'", now=time.time())
    caller.ok({"machine": as_item(hosted)})


def snapshots(service: Service, caller: Caller, message: Message) -> Step[None]:
    """Answer with the points that a machine can be taken back to."""
    hosted = yield from ready(service, caller, message, State.RUNNING, State.PAUSED)
    found: list[dict[str, Any]] = []

    def look(machine: Machine, channel: Channel) -> None:
        names = [
            {"point": item.name, "created_at": item.created_at, "bytes": item.memory_bytes}
            for item in list_snapshots(machine.process.monitor)
        ]
        channel.done({"points": names}, handles(machine))

    done = yield from in_child(service, hosted, "listing snapshots", look)
    found.extend(done["points"])
    caller.items(found)


def revert(service: Service, caller: Caller, message: Message) -> Step[None]:
    """Take a machine back to a point; who has entered it is thrown out."""
    hosted = yield from ready(service, caller, message, State.RUNNING, State.PAUSED)
    if hosted.caller is not None:
        raise Conflict(
            f"a job runs in machine '{hosted.id}': its output cannot be taken back",
            hint="machines that stay ('mayfly run --detach') can be reverted",
        )
    name = text_of(message, "point", 40)
    try:
        yield from _act(service, hosted, "reverting", lambda one: revert_to(one, name))
    except Failed as error:
        end(service, hosted, f"it could not be reverted: {error.message}")
        raise
    hosted.write(replace(hosted.record, state=State.RUNNING))
    service.logs.event(hosted.id, f"reverted to '{name}'", now=time.time())
    caller.ok({"machine": as_item(hosted)})


def _act(service: Service, hosted: Hosted, what: str, act: Callable[[Machine], None]) -> Step[None]:
    def body(machine: Machine, channel: Channel) -> None:
        act(machine)
        channel.done({}, handles(machine))

    yield from in_child(service, hosted, what, body)


def in_child(
    service: Service, hosted: Hosted, what: str, body: Callable[[Machine, Channel], None]
) -> Step[dict[str, Any]]:
    """Do something lengthy with a running machine in a child, which has it meanwhile."""
    with occupied(service, hosted, what) as machine:
        done = yield from work(
            lambda channel: body(machine, channel),
            name=f"{what} ({hosted.id})",
            keep=[*handles(machine), hosted.place.fileno()],
            limit_s=WORK_LIMIT_S,
        )
        if done.fds:
            # The child may have begun another conversation with QEMU or the agent: we go on
            # with that one.
            let_go(machine)
            hosted.machine = rebuild(hosted.record, hosted.place, done.fds)
            hosted.signs = None
        return dict(done.words)
