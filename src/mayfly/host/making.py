"""Makes machines in forked children: clones for a request, and standbys before one comes."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from mayfly.engine import memory
from mayfly.engine.machine import Machine, Order, start_machine
from mayfly.engine.oneshot import template_for
from mayfly.engine.reattach import handles, rebuild
from mayfly.engine.records import Record, new_place, read_record, slot
from mayfly.engine.template import MEMORY, Engine, Template, open_memory
from mayfly.errors import Failed, MayflyError
from mayfly.host.settings import Sharing
from mayfly.host.state import Hosted, Service
from mayfly.host.watching import end, watch
from mayfly.host.work import Channel, Step, renice, work
from mayfly.images.catalogue import check
from mayfly.model import Image, Shape, State

STANDBY_NICENESS = 10
"""Machines that wait are made with what those at work leave over."""
MAKE_LIMIT_S = 900.0
"""A template may have to be made first."""

log = logging.getLogger("mayfly.host")
Heard = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """What is to be made."""

    image: Image
    shape: Shape
    label: str = ""
    disk_mib: int | None = None
    owner: int | None = None
    """None makes a standby."""
    job: str = ""
    """Key of the batch job's right on which it stands."""


def make(service: Service, making: Making, heard: Heard) -> Step[Hosted]:
    """Make a machine and take it into the table; raises what went wrong, leaving nothing."""
    hosted = _new(service, making)
    name, place = hosted.id, hosted.place
    service.table.add(hosted)
    service.starting += 1
    try:
        body = _body(service, hosted, making)
        done = yield from work(
            body,
            name=f"the start of machine {name}",
            keep=[place.fileno()],
            heard=heard,
            limit_s=MAKE_LIMIT_S,
        )
        hosted.record = read_record(place.path)
        hosted.machine = rebuild(hosted.record, place, done.fds)
    except BaseException as error:
        _clear(service, hosted)
        if isinstance(error, MayflyError) and not hosted.doomed:
            service.fitness.failed(making.image.name, error, time.monotonic())
        raise
    finally:
        service.starting -= 1
    service.fitness.made(making.image.name, time.monotonic())
    hosted.busy = ""
    watch(service, hosted)
    if hosted.doomed:
        end(service, hosted, hosted.doomed)
        raise Failed(f"machine {name} was ended while it started: {hosted.doomed}")
    return hosted


def _new(service: Service, making: Making) -> Hosted:
    """Write down that a machine is about to be made, before anything of it is."""
    engine = service.engine
    check(making.image)
    name, place = new_place(engine.paths.machines)
    record = Record(
        id=name,
        image=making.image.name,
        template="",
        cpus=making.shape.cpus,
        memory_mib=making.shape.memory_mib,
        network="none",
        state=State.WANTED,
        command=making.label,
        created_at=time.time(),
        uid=engine.settings.uid_first + slot(name),
        owner=making.owner,
        job=making.job,
        image_sha512=making.image.sha512,
        endorsed_sha512=making.image.endorsed_sha512,
    )
    return Hosted(
        record=record,
        place=place,
        need=service.need(making.shape, making.disk_mib),
        sha512=making.image.sha512,
        busy="starting",
    )


def _clear(service: Service, hosted: Hosted) -> None:
    """Remove what a child that failed, or was killed, has left."""
    hosted.place.kill_qemu()
    hosted.place.remove()
    hosted.ended = True
    service.table.remove(hosted)


def _body(service: Service, hosted: Hosted, making: Making) -> Callable[[Channel], None]:
    engine, place, name = service.engine, hosted.place, hosted.id
    standby = making.owner is None

    def body(channel: Channel) -> None:
        if standby:
            os.nice(STANDBY_NICENESS)
        template = template_for(engine, making.image, making.shape, channel.report)
        alone = service.settings.sharing is Sharing.NONE
        disk_bytes = hosted.need.disk_mib << 20
        order = Order(command=making.label, outlive=True, own_memory=alone, disk_bytes=disk_bytes)
        fd = _memory_for(engine, template, channel.report, alone=alone)
        machine = start_machine(engine, template, making.image, order, fd, held=(name, place))
        try:
            if standby:
                _put_by(machine)
            machine.place.write(replace(machine.record, owner=making.owner))
            channel.done({}, handles(machine))
        except BaseException:
            machine.delete()
            raise

    return body


def _memory_for(engine: Engine, template: Template, report: Heard, *, alone: bool) -> int:
    """Give the template's memory, which machines share until they write, or a copy of it.

    Who shares memory with another can tell, by the time that a write takes, what that one has.
    """
    if not alone:
        return open_memory(engine, template, report)
    size = template.shape.memory_mib << 20
    return memory.load(template.image, template.path / MEMORY, size, sealed=False)


def _put_by(machine: Machine) -> None:
    """Warm a machine up by one trip on the way that jobs take, and stop it."""
    machine.control.request({"type": "warm"})
    machine.process.monitor.call("stop")
    machine.record = replace(machine.record, state=State.STANDBY)


def wake(hosted: Hosted) -> None:
    """Give a standby the same share of the CPUs as machines that were made for a request."""
    if hosted.machine is not None:
        renice(hosted.machine.process.pid, 0)
