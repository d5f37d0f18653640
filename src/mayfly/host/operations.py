"""What is done with a machine that somebody has: stop, go on, enter, give back."""

from __future__ import annotations

import os
import time
import uuid
from dataclasses import replace
from typing import Any

from mayfly.engine.process import connect_socket
from mayfly.errors import Conflict, Missing
from mayfly.host.caller import Caller
from mayfly.host.machines import as_item, may_enter, own
from mayfly.host.qemu import answered, replied
from mayfly.host.state import Hosted, Service
from mayfly.host.watching import end, occupied
from mayfly.host.work import Step
from mayfly.model import State

Message = dict[str, Any]


def pause(service: Service, caller: Caller, message: Message) -> Step[None]:
    """Stop a machine's CPUs; its memory stays."""
    hosted = ready(service, caller, message, State.RUNNING)
    with occupied(service, hosted, "pausing") as machine:
        machine.process.monitor.send("stop")
        yield from replied(machine.process.monitor, "stop")
        hosted.write(replace(hosted.record, state=State.PAUSED))
    caller.ok({"machine": as_item(hosted)})


def resume(service: Service, caller: Caller, message: Message) -> Step[None]:
    """Let a paused machine go on."""
    hosted = ready(service, caller, message, State.PAUSED)
    yield from go_on(service, hosted)
    caller.ok({"machine": as_item(hosted)})


def go_on(service: Service, hosted: Hosted) -> Step[None]:
    """Let a paused machine's CPUs run, and tell it the time."""
    with occupied(service, hosted, "resuming") as machine:
        machine.process.monitor.send("cont")
        yield from replied(machine.process.monitor, "cont")
        hosted.write(replace(hosted.record, state=State.RUNNING))
        number = machine.control.send(refresh_request())
        yield from answered(machine.control, number, "refresh")


def refresh_request() -> dict[str, Any]:
    """Give the request that sets a machine's clock and stirs its random generator."""
    return {
        "type": "refresh",
        "epoch": str(uuid.uuid4()),
        "seed": os.urandom(64).hex(),
        "time_ns": time.time_ns(),
    }


def enter(service: Service, caller: Caller, message: Message) -> Step[None]:
    """Give the session port of a machine in which no job of a client runs."""
    hosted = ready(service, caller, message, State.RUNNING)
    may_enter(service, caller, hosted)
    if hosted.caller is not None or hosted.client >= 0:
        raise Conflict(
            f"a job runs in machine '{hosted.id}', and its only session is taken by it",
            hint="machines that stay ('mayfly run --detach') can be entered",
        )
    if hosted.visitor is not None:
        raise Conflict(f"somebody has entered machine '{hosted.id}' already")
    machine = hosted.machine
    assert machine is not None
    # Who keeps his ends of earlier visits open fills QEMU's queue: that is no reason to wait.
    with connect_socket(machine.process.place, "session", patience_s=0) as port:
        hosted.visitor = caller
        caller.machine = hosted.id
        service.logs.event(hosted.id, f"entered by uid {caller.uid}", now=time.time())
        caller.ok({"machine": as_item(hosted)}, [port.fileno(), machine.process.handle])
    yield from ()


def release(service: Service, caller: Caller, message: Message) -> Step[None]:
    """Take a machine back, with how its job ended."""
    hosted = _held(service, caller, message)
    outcome = message.get("outcome")
    if isinstance(outcome, dict):
        service.logs.status(hosted.id, outcome)
    if hosted.visitor is caller:
        hosted.visitor = None
        caller.machine = ""
        caller.ok()
        return
    hosted.caller = None
    caller.machine = ""
    end(service, hosted, "its job ended")
    caller.ok()
    yield from ()


def _held(service: Service, caller: Caller, message: Message) -> Hosted:
    """Give the machine that a caller gives back, also when its connection was to another service.

    That one may have been restarted since: the process that has the machine is then known by
    what is written down.
    """
    hosted = service.table.find(caller.machine)
    if hosted is not None and caller in (hosted.caller, hosted.visitor):
        return hosted
    hosted = service.table.find(str(message.get("machine")))
    if hosted is not None and hosted.caller is None:
        record, peer = hosted.record, caller.peer
        if (record.client, record.client_started) == (peer.pid, peer.started):
            return hosted
    raise Missing("this connection has no machine")


def ready(service: Service, caller: Caller, message: Message, *states: State) -> Hosted:
    """Give the machine that a request names; raises ``Conflict`` when it is not in such a state."""
    hosted = own(service, caller, message)
    if hosted.busy:
        raise Conflict(f"machine '{hosted.id}' is busy: {hosted.busy}", hint="try again")
    if hosted.record.state not in states:
        wanted = " or ".join(state.value for state in states)
        raise Conflict(f"machine '{hosted.id}' is {hosted.record.state.value}, not {wanted}")
    return hosted
