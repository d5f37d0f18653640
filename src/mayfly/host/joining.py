"""Processes of one batch job share a machine: the first has it made, all are let in by turns.

join -> first: have it held (a process of the job's user claims it, and serves its directories)
     -> wait, while it is being made, or while another brings the working directory
     -> a port of one's own into the machine
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from typing import Any

from mayfly.engine.machine import Machine
from mayfly.engine.visits import FD_NAME, Command, Doors, adding, port_name, read_doors, removing
from mayfly.errors import Conflict, Denied, Failed, MayflyError, Missing, Quota
from mayfly.host import cgroups, usage
from mayfly.host.caller import Caller
from mayfly.host.guard import guarded
from mayfly.host.loop import Wait
from mayfly.host.qemu import answered, replied
from mayfly.host.rights import Right
from mayfly.host.state import Hosted, Joining, Service
from mayfly.host.watching import occupied
from mayfly.host.wish import text_of
from mayfly.host.work import Step
from mayfly.model import State

Message = dict[str, Any]
MOMENT_S = 0.02
PATIENCE_S = 60.0
KEY_LENGTH = 200

log = logging.getLogger("mayfly.host")


def join(service: Service, caller: Caller, message: Message) -> None:
    """Let a process of a job into the job's machine; it is answered when its turn has come."""
    key = text_of(message, "job", KEY_LENGTH)
    if caller.machine:
        raise Conflict(f"this connection has machine '{caller.machine}' already")
    check_shared(service, caller, key)
    joining = service.joining.setdefault(key, Joining())
    joining.waiting.append(caller)
    if message.get("brings") is True:
        joining.bringing.add(caller)
    advance(service, key)


def begun(service: Service, caller: Caller, _: Message) -> None:
    """Hear that what a process runs has begun: the working directory is there for all."""
    hosted = service.table.find(caller.machine)
    if hosted is None or caller not in hosted.sessions:
        raise Missing("this connection has no machine")
    caller.ok()
    _brought(service, hosted, caller)


def check_shared(service: Service, caller: Caller, key: str) -> Right:
    """Give the right to a shared machine; raises when the caller is not of its job."""
    right = service.rights.find(key)
    if right is None:
        raise Missing(
            f"no job {key[:200]!r} is registered on this host",
            hint="the batch system's prolog registers jobs: its log tells why it did not",
        )
    if right.uid != caller.uid:
        raise Denied(f"job {key} is not yours")
    if not right.shared:
        raise Denied(f"the machine of job {key} is for one process")
    cgroups.check_member(caller.peer.pid, right.cgroup)
    return right


def machine_of(service: Service, key: str) -> Hosted | None:
    """Give the machine of a job, also while it is being made."""
    return next((one for one in service.table if one.record.job == key and not one.doomed), None)


def advance(service: Service, key: str) -> None:
    """See who of a job can be let in, or has to have the machine made."""
    joining = service.joining.get(key)
    if joining is None or joining.letting_in:
        return
    if not joining.waiting and joining.maker is None:
        del service.joining[key]
        return
    hosted = machine_of(service, key)
    if hosted is not None or any(request.wish.job == key for request in service.line.values()):
        joining.maker = None
        if hosted is not None and _is_open(hosted) and joining.waiting:
            joining.letting_in = True
            caller = joining.waiting[0]
            service.loop.spawn(guarded(_let_in(service, hosted, joining, caller), caller))
    elif joining.maker is None:
        joining.maker = joining.waiting.pop(0)
        joining.bringing.discard(joining.maker)
        joining.maker.ok({"first": True})


def _is_open(hosted: Hosted) -> bool:
    """Tell whether a machine is its job's already, and nobody has to be waited for."""
    if hosted.machine is None or hosted.bringing is not None:
        return False
    # Of one that an earlier service gave to its job the holder is known by its pid only.
    held = hosted.caller is not None or hosted.client >= 0
    return held and hosted.record.state in (State.RUNNING, State.PAUSED)


def _let_in(service: Service, hosted: Hosted, joining: Joining, caller: Caller) -> Step[None]:
    key = hosted.record.job
    try:
        yield from _until_idle(hosted)
        with occupied(service, hosted, "letting a task of its job in") as machine:
            port = yield from _open(machine)
        with port:
            fields = {
                "machine": hosted.id,
                "image": hosted.record.image_pin,
                "env": dict(hosted.env),
                "fresh": hosted.fresh,
            }
            assert hosted.machine is not None
            _has(hosted, caller, brings=caller in joining.bringing)
            caller.ok(fields, [port.fileno(), hosted.machine.process.handle])
        if caller.gone:
            left(service, caller)
    finally:
        joining.letting_in = False
        joining.bringing.discard(caller)
        if caller in joining.waiting:
            joining.waiting.remove(caller)
        service.loop.later(0, lambda: advance(service, key))


def _has(hosted: Hosted, caller: Caller, *, brings: bool) -> None:
    hosted.sessions.add(caller)
    caller.machine = hosted.id
    if hosted.fresh and brings:
        hosted.bringing = caller
    hosted.fresh = False


def _until_idle(hosted: Hosted) -> Step[None]:
    deadline = time.monotonic() + PATIENCE_S
    while hosted.busy and not hosted.doomed and time.monotonic() < deadline:
        yield Wait(seconds=MOMENT_S)
    if hosted.busy or hosted.doomed or hosted.machine is None:
        raise Failed(f"the job's machine cannot be had: {hosted.doomed or hosted.busy}")


def _open(machine: Machine) -> Step[socket.socket]:
    """Give a port into a machine at which nobody else is; what others have left is removed."""
    monitor = machine.process.monitor
    monitor.send("query-chardev")
    doors = read_doors((yield from replied(monitor, "query-chardev")))
    for number in doors.left:
        # A device that was just removed lets go of its socket later: the next one removes that.
        for command in removing(number):
            with contextlib.suppress(Failed):
                yield from _tell(machine, [command])
    if doors.main_free:
        return machine.session()
    return (yield from _add(machine, doors))


def _add(machine: Machine, doors: Doors) -> Step[socket.socket]:
    number = doors.next
    if number is None:
        raise Quota(
            f"{len(doors.used) + 1} tasks of the job are in its machine: there is room for no more",
            hint="start fewer tasks at once on one host",
        )
    monitor = machine.process.monitor
    near, far = socket.socketpair()
    try:
        with far:
            monitor.send("getfd", {"fdname": FD_NAME}, fds=[far.fileno()])
            yield from replied(monitor, "getfd")
        yield from _tell(machine, adding(number))
        asked = machine.control.send({"type": "visit", "port": port_name(number)})
        yield from answered(machine.control, asked, "visit")
    except BaseException:
        near.close()
        raise
    return near


def _tell(machine: Machine, commands: list[Command]) -> Step[None]:
    monitor = machine.process.monitor
    for name, arguments in commands:
        monitor.send(name, arguments)
        yield from replied(monitor, name)


def left(service: Service, caller: Caller) -> None:
    """A connection has ended: what it waited for or held is others' now."""
    for key, joining in list(service.joining.items()):
        if caller in joining.waiting and not joining.letting_in:
            joining.waiting.remove(caller)
        joining.bringing.discard(caller)
        if joining.maker is caller:
            joining.maker = None
        advance(service, key)
    for hosted in service.table:
        if caller in hosted.sessions:
            leave(service, hosted, caller)


def leave(service: Service, hosted: Hosted, caller: Caller) -> None:
    """A process of the job has done with the machine, which stays."""
    hosted.sessions.discard(caller)
    caller.machine = ""
    usage.sample(hosted)
    right = service.rights.find(hosted.record.job)
    if right is not None and right.cgroup and hosted.machine is not None and not hosted.sessions:
        try:
            cgroups.to_extern(hosted.machine.process.pid, right.cgroup)
        except MayflyError as error:
            log.info("machine %s: %s", hosted.id, error.message)
    _brought(service, hosted, caller)


def _brought(service: Service, hosted: Hosted, caller: Caller) -> None:
    if hosted.bringing is caller:
        hosted.bringing = None
    advance(service, hosted.record.job)


def claim_ended(service: Service, key: str, error: MayflyError | None = None) -> None:
    """A claim of a shared machine was fulfilled, or failed: tell those of the job who wait."""
    joining = service.joining.get(key)
    if joining is None:
        return
    joining.maker = None
    if error is not None and machine_of(service, key) is None:
        waiting, joining.waiting = joining.waiting, []
        for caller in waiting:
            caller.fail(error)
    advance(service, key)
