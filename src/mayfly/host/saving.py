"""Machines on disk: suspended by their owner, or kept after a failure; and back again."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mayfly.engine.machine import Machine, Order
from mayfly.engine.network.attach import NetworkPlan
from mayfly.engine.reattach import handles, rebuild
from mayfly.engine.records import read_record
from mayfly.engine.refresh import Refreshing, begin_refresh, end_refresh
from mayfly.engine.resume import bring_back as bring_machine_back
from mayfly.engine.suspend import flush_saved
from mayfly.engine.suspend import suspend as suspend_machine
from mayfly.engine.template import find_template
from mayfly.errors import Conflict, MayflyError, Quota
from mayfly.host.caller import Caller
from mayfly.host.limits import Held, no_room_to_keep
from mayfly.host.loop import Task, Wait
from mayfly.host.machines import as_item, may_enter
from mayfly.host.network import connect
from mayfly.host.operations import go_on, ready
from mayfly.host.permits import check_resumed
from mayfly.host.points import in_child
from mayfly.host.qemu import replied
from mayfly.host.rights import put_into_cgroup
from mayfly.host.state import RESUMING, SAVED, SUSPENDING, Hosted, Service
from mayfly.host.trust import check_new_job
from mayfly.host.watching import end, end_process, end_qemu, forget_client, watch
from mayfly.host.work import Channel, Done, Step, work
from mayfly.model import NetworkMode, State

Message = dict[str, Any]
SAVE_LIMIT_S = 600.0
PROOF_LIMIT_S = 60.0

log = logging.getLogger("mayfly.host")


def suspend(service: Service, caller: Caller, message: Message) -> Step[None]:
    """Write a machine to disk and free its memory."""
    hosted = yield from ready(service, caller, message, State.RUNNING, State.PAUSED)
    if hosted.caller is not None or hosted.visitor is not None:
        raise Conflict(
            f"somebody is connected to machine '{hosted.id}', whose streams cannot be put on disk",
            hint="machines that stay ('mayfly run --detach') can be suspended when left",
        )
    yield from put_away(service, hosted, State.SUSPENDED, "suspended by its owner")
    caller.ok({"machine": as_item(hosted)})


def put_away(service: Service, hosted: Hosted, state: State, reason: str) -> Step[None]:
    """Save a machine and end its QEMU; when this raises, the machine is as it was."""
    _check_quota(service, hosted)
    target = hosted.place.path / SAVED
    image = service.image_of(hosted.record)
    template = find_template(service.engine, image, hosted.shape)
    if template is not None and template.key != hosted.record.template:
        template = None

    def body(machine: Machine, channel: Channel) -> None:
        suspend_machine(machine, template, image, target, flush=False)
        channel.done({})

    yield from in_child(service, hosted, SUSPENDING, body)
    machine = hosted.machine
    assert machine is not None
    # A lease says itself how long.
    leased = bool(hosted.record.lease)
    expires_at = None if leased else time.time() + service.settings.kept.for_s
    hosted.write(
        replace(hosted.record, state=state, reason=reason[:300], expires_at=expires_at, client=0)
    )
    yield from end_qemu(service, hosted)
    forget_client(service, hosted)
    service.logs.event(hosted.id, f"{state.value}: {reason}", now=time.time())
    service.loop.spawn(_flush(target))
    service.changed()


def _flush(saved: Path) -> Task:
    """Have a saved machine on the disk before long; its owner need not wait for that."""

    def body(channel: Channel) -> None:
        flush_saved(saved)
        channel.done({})

    try:
        yield from work(body, name=f"flushing {saved}", limit_s=SAVE_LIMIT_S)
    except MayflyError as error:
        # It may have been resumed, or deleted, meanwhile.
        log.info("%s", error.message)


def _check_quota(service: Service, hosted: Hosted) -> None:
    kept = [
        Held(uid=one.record.owner or 0, need=one.need)
        for one in service.table
        if one.is_saved or one.busy == SUSPENDING
    ]
    disk_mib = hosted.record.memory_mib + hosted.need.disk_mib
    full = no_room_to_keep(hosted.record.owner or 0, disk_mib, kept, service.settings.kept)
    if full:
        raise Quota(
            f"machine '{hosted.id}' cannot be kept: {full}",
            hint="'mayfly machine delete ID' removes machines that are kept",
        )


def resume(service: Service, caller: Caller, message: Message) -> Step[None]:
    """Let a paused, suspended or kept machine go on."""
    hosted = yield from ready(service, caller, message, State.PAUSED, State.SUSPENDED, State.KEPT)
    if hosted.record.state is State.PAUSED:
        check_new_job(service, hosted)
        yield from go_on(service, hosted)
    else:
        may_enter(service, caller, hosted)
        yield from check_resumed(service, hosted, caller)
        yield from bring_back(service, hosted, caller)
        return
    caller.ok({"machine": as_item(hosted)})


def bring_back(service: Service, hosted: Hosted, caller: Caller) -> Step[None]:
    """Make a running machine of a saved one; when this raises, it stays saved."""
    lacking = service.lacking(hosted)
    if lacking:
        raise Quota(f"no room to resume machine '{hosted.id}' now: {lacking}")
    before = hosted.record
    hosted.busy = RESUMING
    try:
        done = yield from work(
            _resume_body(service, hosted),
            name=f"the resumption of {hosted.id}",
            keep=[hosted.place.fileno()],
            heard=caller.progress,
            limit_s=SAVE_LIMIT_S,
        )
        _take_hold(hosted, done)
        _into_cgroup(service, hosted)
        yield from _reconnect_network(service, hosted)
        underway = yield from _begin_to_run(hosted)
        caller.ok({"machine": as_item(hosted)})
        yield from _prove(hosted, underway)
    except MayflyError as error:
        # Outside of its job's cgroup, without its network, or repeating itself it must not run.
        yield from end_process(hosted)
        # A child that was killed has left a QEMU which only that record knows.
        hosted.place.kill_qemu()
        hosted.write(before)
        service.logs.event(hosted.id, f"not resumed: {error.message}", now=time.time())
        if not caller.asking:
            return
        raise
    finally:
        hosted.busy = ""
        if hosted.machine is not None:
            watch(service, hosted)
        if hosted.doomed:
            end(service, hosted, hosted.doomed)
    shutil.rmtree(hosted.place.path / SAVED, ignore_errors=True)
    service.logs.event(hosted.id, "resumed", now=time.time())


def _take_hold(hosted: Hosted, done: Done) -> None:
    """Take the machine that a child has brought back over from it."""
    made = read_record(hosted.place.path)
    hosted.record = replace(
        hosted.record, pid=made.pid, started=made.started, state=State.RUNNING, outlive=True
    )
    hosted.machine = rebuild(hosted.record, hosted.place, done.fds)
    hosted.signs = None
    hosted.write(replace(hosted.record, reason="", expires_at=None))


def _begin_to_run(hosted: Hosted) -> Step[Refreshing]:
    machine = hosted.machine
    assert machine is not None
    machine.process.monitor.send("cont")
    yield from replied(machine.process.monitor, "cont")
    return begin_refresh(machine)


def _prove(hosted: Hosted, underway: Refreshing) -> Step[None]:
    """See that the machine has random numbers of its own, and the right time."""
    machine = hosted.machine
    assert machine is not None
    deadline = time.monotonic() + PROOF_LIMIT_S
    while not machine.control.arrived(underway.number) and time.monotonic() < deadline:
        yield Wait(fds=(machine.control.fileno(),), seconds=1.0)
    end_refresh(machine, underway, hosted.place.path / SAVED)


def _resume_body(service: Service, hosted: Hosted) -> Callable[[Channel], None]:
    record, place, engine = hosted.record, hosted.place, service.engine
    image = service.image_of(record)
    order = Order(
        command=record.command,
        network=record.network,
        outlive=True,
        disk_bytes=hosted.need.disk_mib << 20,
    )

    def body(channel: Channel) -> None:
        saved = place.path / SAVED
        machine = bring_machine_back(
            engine, saved, image, order, channel.report, (record.id, place)
        )
        try:
            channel.done({}, handles(machine))
        except BaseException:
            machine.process.kill()
            raise

    return body


def _into_cgroup(service: Service, hosted: Hosted) -> None:
    right = service.rights.find(hosted.record.job) if hosted.record.job else None
    if right is not None and right.cgroup and hosted.machine is not None:
        put_into_cgroup(hosted.machine.process.pid, right.cgroup)


def _reconnect_network(service: Service, hosted: Hosted) -> Step[None]:
    """Give a resumed machine a network of the same kind; the guest has its card set up still."""
    mode = NetworkMode(hosted.record.network)
    if mode is NetworkMode.NONE or hosted.machine is None:
        return
    plan = NetworkPlan(
        mode=mode,
        allow=tuple(hosted.record.allow),
        site_networks=service.engine.settings.site_networks,
    )
    yield from connect(hosted.machine, plan)
