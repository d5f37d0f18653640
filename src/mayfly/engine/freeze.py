"""Make a template: boot the image once, let it settle, and freeze memory, devices and disk."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mayfly.command import run
from mayfly.engine import memory
from mayfly.engine.agentdisk import agent_disk
from mayfly.engine.argv import Drive, Plan
from mayfly.engine.boot import Booted, boot
from mayfly.engine.context import find_context
from mayfly.engine.machine import clone_identity_test
from mayfly.engine.monitor import STATE_WITHOUT_MEMORY, Monitor
from mayfly.engine.process import Process, bounds_for, isolation_for, start_process
from mayfly.engine.records import Record, new_place, slot
from mayfly.engine.template import (
    AGENT,
    DISK,
    EMPTY,
    MEMORY,
    STATE,
    Engine,
    Report,
    Template,
    check_fits,
    find_template,
    open_file,
    remove_stale,
    remove_template_files,
    stamp,
    template_key,
    template_lock,
    write_template,
)
from mayfly.engine.watch import CONSOLE_LOG
from mayfly.errors import Failed, Quota
from mayfly.model import Image, Shape, State
from mayfly.units import MIB, show_size

TOOL_LIMIT_S = 60.0
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES})
DISK_HEADROOM = 400 * MIB
"""What a template's disk layer takes at most, by experience, besides its memory."""


def ensure_template(engine: Engine, image: Image, shape: Shape, report: Report) -> Template:
    """Give the template of an image and shape, making it when there is none.

    Raises ``Quota`` when this host has not the memory or disk, ``Failed`` when the guest does not
    come up or its clones cannot be proved unique.
    """
    check_fits(shape)
    key = template_key(engine, image, shape)
    with template_lock(engine, key, report):
        # Another command may have made it while this one waited.
        found = find_template(engine, image, shape)
        if found is not None:
            return found
        template = _make(engine, image, shape, key, report)
        remove_stale(engine, template)
    return template


def _make(engine: Engine, image: Image, shape: Shape, key: str, report: Report) -> Template:
    final = engine.paths.templates / key
    # The lock is ours: whoever left a half-made one is dead.
    for path in (final, engine.paths.templates / f".{key}"):
        remove_template_files(path)
    fresh = engine.paths.templates / f".{key}"
    fresh.mkdir(parents=True, mode=0o700)
    _check_room(fresh, shape)
    fd = -1
    try:
        fd = memory.new_memory(image.name, shape.memory_mib * MIB)
        booted = _boot_and_freeze(engine, image, shape, fresh, fd, report)
        (fresh / CONSOLE_LOG).write_text("\n".join(booted.console) + "\n", errors="replace")
        report("saving the template")
        memory.seal(fd)
        memory.save(fd, fresh / MEMORY)
        _empty_layer(image, fresh)
        template = _describe(image, shape, key, fresh, booted)
        title = f"{image.name} {shape.cpus} CPU {shape.memory_mib} MiB"
        memory.hold(fresh, fd, title=title, hours=engine.settings.template_hours)
        report("proving that clones are unique")
        clone_identity_test(engine, template, image, fd)
        write_template(template, fresh)
        # It gets its name whole: what bears none is debris as soon as nobody holds its lock.
        fresh.rename(final)
    except BaseException as error:
        remove_template_files(fresh)
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise Quota(
                f"cannot make the template in {engine.paths.templates}: {error.strerror}",
                hint=f"free some space, or set MAYFLY_HOME to a roomier disk than {fresh.parent}",
            ) from error
        raise
    finally:
        if fd >= 0:
            os.close(fd)
    return replace(template, path=final)


def _check_room(directory: Path, shape: Shape) -> None:
    free = shutil.disk_usage(directory).free
    needed = shape.memory_mib * MIB + DISK_HEADROOM
    if free < needed:
        directory.rmdir()
        raise Quota(
            f"a template needs up to {show_size(needed)} in {directory.parent}, "
            f"which has {show_size(free)} free",
            hint="free some space, or set MAYFLY_HOME to a directory on a roomier disk",
        )


def _boot_and_freeze(
    engine: Engine, image: Image, shape: Shape, fresh: Path, fd: int, report: Report
) -> Booted:
    context = find_context(engine.paths.contexts, image.name)
    agent_iso = agent_disk(engine.paths.cache, context)
    os.link(agent_iso, fresh / AGENT)
    layer = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", image.format]
    run([*layer, "-b", str(image.disk.resolve()), str(fresh / DISK)], timeout_s=TOOL_LIMIT_S)
    with contextlib.ExitStack() as stack:
        fds = [
            open_file(fresh / DISK, write=True),
            open_file(image.disk),
            open_file(fresh / AGENT),
        ]
        for item in fds:
            stack.callback(os.close, item)
        plan = Plan(
            name=f"mayfly-template-{image.name}",
            shape=shape,
            accelerator=engine.accelerator,
            memory_fd=fd,
            share_memory=True,
            incoming=False,
            disks=(Drive(fd=fds[0], format="qcow2"), Drive(fd=fds[1], format=image.format)),
            agent_disk_fd=fds[2],
            sockets={},
        )
        process = stack.enter_context(template_process(engine, image, plan))
        booted = boot(process, image, report, context)
        report("freezing")
        save_state(process.monitor, fresh / STATE)
        process.monitor.call("quit")
        process.wait(timeout_s=TOOL_LIMIT_S)
    (fresh / DISK).chmod(0o400)
    _flush(fresh / DISK)
    return booted


@contextlib.contextmanager
def template_process(engine: Engine, image: Image, plan: Plan) -> Iterator[Process]:
    """Run the QEMU that becomes a template; it is gone at the end, whatever happens."""
    name, place = new_place(engine.paths.machines)
    try:
        uid = engine.settings.uid_first + slot(name) if os.geteuid() == 0 else None
        record = Record(
            id=name,
            image=image.name,
            image_sha512=image.sha512,
            endorsed_sha512=image.endorsed_sha512,
            template="",
            cpus=plan.shape.cpus,
            memory_mib=plan.shape.memory_mib,
            network="none",
            state=State.STARTING,
            command="(making a template)",
            created_at=time.time(),
            uid=uid,
        )
        kvm = plan.accelerator == "kvm"
        bounds = bounds_for(plan.shape, image.disk_bytes)
        isolation = isolation_for(engine.qemu, bounds, uid=uid, kvm=kvm, die_with_parent=True)
        process, _ = start_process(engine.qemu, plan, isolation, place, record)
        try:
            process.ready()
            yield process
        finally:
            process.kill()
            process.let_go()
    finally:
        place.remove()


def save_state(monitor: Monitor, path: Path) -> None:
    """Stop the guest and write its device state, without its memory, to a new file."""
    monitor.call("migrate-set-capabilities", STATE_WITHOUT_MEMORY)
    monitor.call("stop")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        monitor.call("getfd", {"fdname": "state"}, fds=[fd])
        monitor.call("migrate", {"uri": "fd:state"})
        ended = ("completed", "failed", "cancelled")
        event = monitor.wait_event("MIGRATION", timeout_s=TOOL_LIMIT_S, field="status", among=ended)
        if event["status"] != "completed":
            detail = monitor.call("query-migrate").get("error-desc", event["status"])
            raise Failed(f"QEMU could not save the template's state: {detail}")
        os.fsync(fd)
    finally:
        os.close(fd)


def _flush(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _empty_layer(image: Image, fresh: Path) -> None:
    """Make the empty disk layer that each clone gets a copy of."""
    # Its backing file is given when QEMU opens it: the name in it is only for people.
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-F", "qcow2", "-b", DISK]
    run([*words, str(fresh / EMPTY), str(image.disk_bytes)], timeout_s=TOOL_LIMIT_S)
    _flush(fresh / EMPTY)


def _describe(image: Image, shape: Shape, key: str, fresh: Path, booted: Booted) -> Template:
    hello = booted.hello
    return Template(
        key=key,
        path=fresh,
        image=image.name,
        image_sha512=image.sha512,
        shape=shape,
        kernel=str(hello.get("kernel", ""))[:100],
        os=str(hello.get("os", ""))[:100],
        init=str(hello.get("init", ""))[:40],
        features=tuple(str(name)[:40] for name in hello.get("features", ()))[:40],
        boot_s=booted.boot_s,
        settled=booted.settled,
        samples=booted.samples,
        files=stamp(fresh),
        created_at=time.time(),
        context=booted.context,
    )
