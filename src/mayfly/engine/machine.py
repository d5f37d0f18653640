"""A machine: clone a template, renew it, prove it unique, give it to its user, take it away."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mayfly.engine import records
from mayfly.engine.argv import NO_NETWORK, PORTS_MOST, Drive, Plan
from mayfly.engine.control import Control
from mayfly.engine.monitor import STATE_WITHOUT_MEMORY, Monitor
from mayfly.engine.process import Process, bounds_for, isolation_for, start_process
from mayfly.engine.records import Place, Record, new_place, no_room, slot
from mayfly.engine.renewal import Identity, check_renewed, renew_request
from mayfly.engine.template import (
    AGENT,
    DISK,
    EMPTY,
    STATE,
    Engine,
    Template,
    open_file,
    open_memory,
)
from mayfly.engine.watch import Signs, save_console
from mayfly.errors import Failed
from mayfly.model import Account, Image, Shape, State

RESTORE_LIMIT_S = 60.0
ANSWER_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attach:
    """How a clone's network card is connected."""

    qemu_args: tuple[str, ...] = NO_NETWORK
    fds: tuple[int, ...] = ()
    guest: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is asked of a clone."""

    command: str
    """For people who list machines."""
    network: str = "none"
    attach: Attach = Attach()
    outlive: bool = False
    """Whether it may stay when the process that made it is gone."""
    disk_bytes: int | None = None
    """The largest file that it may write; None: its whole disk."""
    own_memory: bool = False
    """Whether the memory that it is given is a copy for it alone, to be written to."""
    meanwhile: Callable[[], object] = lambda: None
    """Called while QEMU starts: time for what has to be done anyway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a machine is put together from, besides the image."""

    shape: Shape
    memory_fd: int | None
    """A memory object; None gives it memory of its own, with nothing in it."""
    layers: tuple[Path, ...]
    """Disk files, top first; only the first is written to."""
    agent: Path
    ports_most: int = PORTS_MOST


@dataclass(slots=True)
class Machine:
    """A running clone, and this process's hold on it."""

    process: Process
    control: Control
    record: Record
    place: Place

    def write_state(self, state: State) -> None:
        """Write down what it is doing now."""
        self.record = replace(self.record, state=state)
        self.place.write(self.record)

    def claim(
        self,
        account: Account,
        *,
        root: bool,
        network: Mapping[str, object] | None = None,
        shares: tuple[Mapping[str, object], ...] = (),
    ) -> None:
        """Give the machine its user, network and shared directories."""
        self.control.request(
            {
                "type": "claim",
                "account": account_message(account),
                "root": root,
                "network": None if network is None else dict(network),
                "shares": [dict(share) for share in shares],
                "time_ns": time.time_ns(),
            },
            timeout_s=ANSWER_LIMIT_S,
        )
        self.write_state(State.RUNNING)

    def session(self) -> socket.socket:
        """Connect to the session port."""
        return self.process.connect("session")

    def keep(self, reason: str, expires_at: float) -> None:
        """Stop its CPUs and leave it, to be looked at later; when this raises, it does not stay."""
        self.process.monitor.call("stop")
        with contextlib.suppress(OSError):
            save_console(self.process.monitor, self.place.path)
        kept = records.keep(self.record, reason=reason, expires_at=expires_at)
        self.place.write(kept)
        # Only from here on: what could not be written down must not stay.
        self.record = kept
        self.control.close()
        self.process.let_go()
        self.place.release()

    def delete(self) -> None:
        """End it and remove everything of it."""
        self.control.close()
        try:
            self.process.kill()
        finally:
            self.process.let_go()
            self.place.remove()


def account_message(account: Account) -> dict[str, Any]:
    """Give an account as the agent wants it."""
    return {
        "name": account.name,
        "uid": account.uid,
        "gid": account.gid,
        "groups": [{"name": group.name, "gid": group.gid} for group in account.groups],
        "home": account.home,
        "shell": account.shell,
    }


def start_machine(
    engine: Engine,
    template: Template,
    image: Image,
    order: Order,
    memory_fd: int,
    *,
    held: tuple[str, Place] | None = None,
) -> Machine:
    """Clone a template: a running, renewed machine that was proved unique, with no user yet.

    ``held``: the id and directory to use, when the caller has made them already. Raises ``Failed``
    (and leaves nothing) when it cannot be proved unique or does not run.
    """
    name, place = held or new_place(engine.paths.machines)
    process: Process | None = None
    try:
        record = _new_record(engine, template, image, order, name)
        process, record = _spawn(engine, template, image, order, (place, record, memory_fd))
        order.meanwhile()
        _begin(process, template)
        tick = Signs(process).check
        control = Control(process.connect("control"), process.handle, tick=tick)
        control.begin()
        _restore(process.monitor, template)
        machine = Machine(process, control, record, place)
        _renew(machine, template)
    except BaseException as error:
        if process is not None:
            process.kill()
            process.let_go()
        place.remove()
        if isinstance(error, OSError):
            raise no_room(place.path, error) from error
        raise
    return machine


def _new_record(
    engine: Engine, template: Template, image: Image, order: Order, name: str
) -> Record:
    return Record(
        id=name,
        image=template.image,
        template=template.key,
        cpus=template.shape.cpus,
        memory_mib=template.shape.memory_mib,
        network=order.network,
        state=State.WANTED,
        command=order.command,
        created_at=time.time(),
        uid=engine.settings.uid_first + slot(name) if os.geteuid() == 0 else None,
        image_sha512=image.sha512,
        endorsed_sha512=image.endorsed_sha512,
    )


def _spawn(
    engine: Engine,
    template: Template,
    image: Image,
    order: Order,
    held: tuple[Place, Record, int],
) -> tuple[Process, Record]:
    place, record, memory_fd = held
    parts = Parts(
        shape=template.shape,
        memory_fd=memory_fd,
        layers=(_empty_layer(template, place), template.path / DISK),
        agent=template.path / AGENT,
    )
    return spawn(engine, parts, image, order, (place, record))


def spawn(
    engine: Engine, parts: Parts, image: Image, order: Order, held: tuple[Place, Record]
) -> tuple[Process, Record]:
    """Start QEMU for a machine whose state is still to be restored; ``held`` is updated."""
    place, record = held
    with contextlib.ExitStack() as stack:
        fds = []
        for path in (*parts.layers, image.disk, parts.agent):
            fds.append(open_file(path, write=path is parts.layers[0]))
            stack.callback(os.close, fds[-1])
        *layers, base, agent = fds
        plan = Plan(
            name=f"mayfly-{record.id}",
            shape=parts.shape,
            accelerator=engine.accelerator,
            memory_fd=parts.memory_fd,
            share_memory=order.own_memory and parts.memory_fd is not None,
            incoming=True,
            disks=(
                *(Drive(fd=fd, format="qcow2") for fd in layers),
                Drive(fd=base, format=image.format),
            ),
            agent_disk_fd=agent,
            sockets={},
            network=order.attach.qemu_args,
            network_fds=order.attach.fds,
            disk_cache=engine.settings.disk_cache,
            ports_most=parts.ports_most,
        )
        kvm = engine.accelerator == "kvm"
        bounds = bounds_for(parts.shape, image.disk_bytes)
        if order.disk_bytes is not None:
            bounds = replace(bounds, disk=order.disk_bytes)
        isolation = isolation_for(
            engine.qemu, bounds, uid=record.uid, kvm=kvm, die_with_parent=not order.outlive
        )
        return start_process(engine.qemu, plan, isolation, place, record)


def _empty_layer(template: Template, place: Place) -> Path:
    layer = place.path / DISK
    try:
        shutil.copyfile(template.path / EMPTY, layer)
    except OSError as error:
        raise no_room(place.path, error) from error
    return layer


def _begin(process: Process, template: Template) -> None:
    try:
        process.ready()
    except Failed as error:
        raise Failed(error.message, hint=f"if a file is damaged: {_again(template)}") from error


def _again(template: Template) -> str:
    return f"'mayfly template remove {template.key[:12]}' has the template made again"


def _restore(monitor: Monitor, template: Template) -> None:
    state = open_file(template.path / STATE)
    try:
        monitor.send("migrate-set-capabilities", STATE_WITHOUT_MEMORY)
        monitor.send("getfd", {"fdname": "state"}, fds=[state])
        monitor.send("migrate-incoming", {"uri": "fd:state"})
    finally:
        os.close(state)
    for command in ("migrate-set-capabilities", "getfd", "migrate-incoming"):
        monitor.reply(command)
    event = monitor.wait_event(
        "MIGRATION", timeout_s=RESTORE_LIMIT_S, field="status", among=("completed", "failed")
    )
    if event["status"] != "completed":
        raise Failed(
            f"QEMU could not restore template {template.key} of '{template.image}'",
            hint=_again(template),
        )
    monitor.call("cont")


def _renew(machine: Machine, template: Template) -> None:
    identity = Identity(
        epoch=uuid.uuid4(),
        boot_id=uuid.uuid4(),
        machine_id=uuid.uuid4().hex,
        hostname=f"mayfly-{machine.record.id}",
        seed=os.urandom(64),
        host_key=None,
    )
    before, began = time.time_ns(), time.monotonic_ns()
    number = machine.control.send(renew_request(identity, before))
    machine.control.hello(timeout_s=ANSWER_LIMIT_S)
    answer = machine.control.answer(number, "renew", timeout_s=ANSWER_LIMIT_S)
    # Not by the clock itself: somebody may have set the host's meanwhile.
    after = before + time.monotonic_ns() - began
    check_renewed(answer, identity, template.samples, (before, after))


def clone_identity_test(engine: Engine, template: Template, image: Image, memory_fd: int) -> None:
    """Clone a new template twice, and raise ``Failed`` unless the clones differ in everything."""
    order = Order(command="(proving a template)")
    seen: list[dict[str, Any]] = []
    for _ in range(2):
        machine = start_machine(engine, template, image, order, memory_fd)
        try:
            seen.append(machine.control.request({"type": "sample"}))
        finally:
            machine.delete()
    for name in ("random", "boot_id", "machine_id", "hostname"):
        if seen[0].get(name) == seen[1].get(name):
            raise Failed(f"two clones of '{template.image}' have the same {name}")


@contextlib.contextmanager
def machine_for(
    engine: Engine,
    template: Template,
    image: Image,
    order: Order,
    report: Callable[[str], None],
) -> Iterator[Machine]:
    """Give a machine that is deleted at the end unless ``keep`` was called meanwhile."""
    memory_fd = open_memory(engine, template, report)
    try:
        machine = start_machine(engine, template, image, order, memory_fd)
    finally:
        os.close(memory_fd)
    try:
        yield machine
    finally:
        if machine.record.state is not State.KEPT:
            machine.delete()
