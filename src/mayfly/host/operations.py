"""What is done with a machine that somebody has: stop, go on, enter, give back."""

from __future__ import annotations

import os
import time
import uuid
from dataclasses import replace
from typing import Any

from mayfly.engine.process import connect_socket
from mayfly.engine.renewal import refresh_request
from mayfly.errors import Conflict, Failed
from mayfly.host.caller import Caller
from mayfly.host.loop import Wait
from mayfly.host.machines import as_item, may_enter, own
from mayfly.host.qemu import answered, replied
from mayfly.host.state import RESUMING, Hosted, Service
from mayfly.host.trust import check_new_job
from mayfly.host.watching import occupied
from mayfly.host.work import Step
from mayfly.model import State

Message = dict[str, Any]
PATIENCE_S = 10.0
MOMENT_S = 0.02


def pause(service: Service, caller: Caller, message: Message) -> Step[None]:
    """Stop a machine's CPUs; its memory stays."""
    hosted = yield from ready(service, caller, message, State.RUNNING)
    with occupied(service, hosted, "pausing") as machine:
        machine.process.monitor.send("stop")
        yield from replied(machine.process.monitor, "stop")
        hosted.write(replace(hosted.record, state=State.PAUSED))
    caller.ok({"machine": as_item(hosted)})


def go_on(service: Service, hosted: Hosted) -> Step[None]:
    """Let a paused machine's CPUs run, and tell it the time."""
    with occupied(service, hosted, "resuming") as machine:
        machine.process.monitor.send("cont")
        yield from replied(machine.process.monitor, "cont")
        hosted.write(replace(hosted.record, state=State.RUNNING))
        number = machine.control.send(refresh_request(uuid.uuid4(), os.urandom(64), time.time_ns()))
        try:
            yield from answered(machine.control, number, "refresh")
        except Failed as error:
            if hosted.doomed or machine.process.has_ended():
                raise
            # An agent of an earlier version cannot do that: the machine goes on all the same.
            service.logs.event(hosted.id, f"its clock is behind: {error}", now=time.time())


def enter(service: Service, caller: Caller, message: Message) -> Step[None]:
    """Give the session port of a machine in which no job of a client runs."""
    hosted = yield from ready(service, caller, message, State.RUNNING)
    may_enter(service, caller, hosted)
    check_new_job(service, hosted)
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


def ready(service: Service, caller: Caller, message: Message, *states: State) -> Step[Hosted]:
    """Give the machine that a request names; raises ``Conflict`` when it is not in such a state."""
    hosted = own(service, caller, message)
    deadline = time.monotonic() + PATIENCE_S
    while hosted.busy == RESUMING and time.monotonic() < deadline:
        # Whoever resumed it was told so already; what it must prove first takes a moment longer.
        yield Wait(seconds=MOMENT_S)
    if hosted.busy:
        raise Conflict(f"machine '{hosted.id}' is busy: {hosted.busy}", hint="try again")
    if hosted.record.state not in states:
        wanted = " or ".join(state.value for state in states)
        raise Conflict(f"machine '{hosted.id}' is {hosted.record.state.value}, not {wanted}")
    return hosted
