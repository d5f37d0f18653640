"""Let a suspended machine go on: here, or on another host that is alike where it matters."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from mayfly.engine.argv import cpu_model
from mayfly.engine.blockjobs import qemu_job
from mayfly.engine.control import Control
from mayfly.engine.hostcpu import cpu_of, lacking
from mayfly.engine.machine import Machine, Order, Parts, spawn
from mayfly.engine.memoryfile import FILES as SNAPSHOT_FILES
from mayfly.engine.monitor import WITH_MEMORY
from mayfly.engine.probe import questioned
from mayfly.engine.process import SOCKETS, Process
from mayfly.engine.records import Place, Record, new_place, no_room, read_record, slot
from mayfly.engine.refresh import DRAWN, refresh
from mayfly.engine.saved import LOWER, MEMORY, Saved, bring, layer, locked, lower, read_saved
from mayfly.engine.snapshots import LIMIT
from mayfly.engine.template import AGENT, DISK, EMPTY, Engine, check_fits, open_file
from mayfly.engine.watch import Signs
from mayfly.errors import Failed, Unavailable
from mayfly.model import Image, State

LAYERS_MOST = 4
"""Disk files below the top one; more make reading slow, and become one."""
LIMIT_S = 600.0

Report = Callable[[str], None]


def check_here(engine: Engine, saved: Path, image: Image | None = None) -> Saved:
    """Give what was saved when it can go on here, with ``image`` if that is given.

    Raises ``Unavailable`` with what does not fit (another host may do), ``Quota`` when this host is
    too small, ``Missing`` or ``Failed`` when it is not there or spoiled.
    """
    found = read_saved(saved)
    trouble = _image_trouble(found, image) or _host_trouble(engine, found)
    if trouble:
        raise Unavailable(
            f"machine '{found.machine}' cannot go on here: {trouble}",
            hint="resume it where it was suspended, or on a host that is alike",
        )
    check_fits(found.shape)
    return found


def _image_trouble(found: Saved, image: Image | None) -> str:
    if image is None or image.sha512 == found.image_sha512:
        return ""
    return (
        f"it needs image '{found.image}' with sha512 {found.image_sha512[:16]}..., "
        f"and '{image.name}' here has {image.sha512[:16]}..."
    )


def _host_trouble(engine: Engine, found: Saved) -> str:
    qemu, accelerator = engine.qemu, engine.accelerator
    if found.accelerator != accelerator:
        return f"it ran under {found.accelerator}, machines here run under {accelerator}"
    if found.cpu_model != cpu_model(accelerator):
        return f"its CPU is '{found.cpu_model}', here it would be '{cpu_model(accelerator)}'"
    if found.vmgenid and not qemu.has_vmgenid:
        return f"QEMU {qemu.version} here has no device 'vmgenid'"
    same = (found.machine_type, found.qemu) == (qemu.machine_type, qemu.version)
    if same and accelerator == "tcg":
        return ""
    with questioned(qemu.path, qemu.root, machine=f"none,accel={accelerator}") as monitor:
        types = [machine["name"] for machine in monitor.call("query-machines")]
        here = cpu_of(monitor, accelerator)
    if found.machine_type not in types:
        return f"QEMU {qemu.version} here has no machine type '{found.machine_type}'"
    names = lacking(found.cpu, here, accelerator)
    return f"the CPU here lacks {', '.join(names)}" if names else ""


def resume(
    engine: Engine,
    saved: Path,
    image: Image,
    order: Order,
    report: Report,
    held: tuple[str, Place] | None = None,
) -> Machine:
    """Let a saved machine go on, with the right time and random numbers of its own.

    ``held``: the id and directory to use, when the caller has made them already; ``saved`` may lie
    in it. What was saved stays, also when this succeeds: the caller removes it. Raises what
    ``check_here`` raises, ``Conflict`` when it is just being resumed, ``Quota``, ``Failed`` when it
    cannot be read back or proved fresh: no process is left then, and ``held`` can be used again.
    """
    with locked(saved):
        found = check_here(engine, saved, image)
        with _site(engine, held) as site:
            machine = _restored(engine, saved, found, (image, order, report), site)
            try:
                machine.process.monitor.call("cont")
                refresh(machine, saved)
                machine.write_state(State.RUNNING)
            except BaseException:
                _end(machine.process, machine.control)
                raise
    return machine


def bring_back(
    engine: Engine,
    saved: Path,
    image: Image,
    order: Order,
    report: Report,
    held: tuple[str, Place] | None = None,
) -> Machine:
    """Do as ``resume``, but leave the CPUs stopped: the caller has them run, and refreshes it."""
    with locked(saved):
        found = check_here(engine, saved, image)
        with _site(engine, held) as site:
            return _restored(engine, saved, found, (image, order, report), site)


@contextlib.contextmanager
def _site(
    engine: Engine, held: tuple[str, Place] | None
) -> Iterator[tuple[str, Place, Record | None]]:
    """Give where a machine is made, with what is written down there; as it was when that fails."""
    name, place = held or new_place(engine.paths.machines)
    before = _record_there(place)
    try:
        yield name, place, before
    except BaseException as error:
        _leave(place, before, held=held is not None)
        if isinstance(error, OSError):
            raise no_room(place.path, error) from error
        raise


def _restored(
    engine: Engine,
    saved: Path,
    found: Saved,
    wanted: tuple[Image, Order, Report],
    site: tuple[str, Place, Record | None],
) -> Machine:
    image, order, report = wanted
    name, place, before = site
    record = _record(engine, found, order, name, before)
    parts = _prepare(saved, found, place)
    process, record = spawn(_fitted(engine, found), parts, image, order, (place, record))
    control: Control | None = None
    try:
        process.ready()
        control = Control(process.connect("control"), process.handle, tick=Signs(process).check)
        machine = Machine(process, control, record, place)
        report("reading the machine's memory back")
        _read_back(process, saved / MEMORY)
        if found.layers > LAYERS_MOST:
            _merge(machine, found)
        machine.write_state(State.PAUSED)
    except BaseException:
        _end(process, control)
        raise
    return machine


def _end(process: Process, control: Control | None) -> None:
    if control is not None:
        control.close()
    process.kill()
    process.let_go()


def _record_there(place: Place) -> Record | None:
    try:
        return read_record(place.path)
    except Failed:
        return None


def _record(engine: Engine, found: Saved, order: Order, name: str, before: Record | None) -> Record:
    fresh = Record(
        id=name,
        image=found.image,
        template=found.template,
        cpus=found.shape.cpus,
        memory_mib=found.shape.memory_mib,
        network=order.network,
        state=State.WANTED,
        command=order.command,
        created_at=time.time(),
        uid=engine.settings.uid_first + slot(name) if os.geteuid() == 0 else None,
    )
    if before is None:
        return fresh
    # Whoever keeps it has written more in it: whom it belongs to, above all.
    return replace(before, network=fresh.network, command=fresh.command, uid=fresh.uid)


def _fitted(engine: Engine, found: Saved) -> Engine:
    """Give an engine that makes machines of the kind that was saved."""
    qemu = replace(engine.qemu, machine_type=found.machine_type, has_vmgenid=found.vmgenid)
    return replace(engine, qemu=qemu)


def _prepare(saved: Path, found: Saved, place: Place) -> Parts:
    """Put the files together that the machine stands on, with a new layer on top."""
    _clear(place.path)
    below = []
    for index in range(found.layers):
        below.append(place.path / lower(index + 1))
        bring(saved / layer(index), below[-1])
    bring(saved / EMPTY, place.path / EMPTY)
    bring(saved / AGENT, place.path / AGENT)
    shutil.copyfile(place.path / EMPTY, place.path / DISK)
    return Parts(
        shape=found.shape,
        memory_fd=None,
        layers=(place.path / DISK, *below),
        agent=place.path / AGENT,
        ports_most=found.ports,
    )


def _clear(place: Path) -> None:
    """Remove what an earlier run of the machine has left; what was saved may be the same files."""
    for name in (DISK, EMPTY, AGENT, DRAWN, LIMIT, *SOCKETS):
        (place / name).unlink(missing_ok=True)
    for pattern in (LOWER, SNAPSHOT_FILES):
        for path in place.glob(pattern):
            path.unlink(missing_ok=True)


def _leave(place: Place, before: Record | None, *, held: bool) -> None:
    if not held:
        place.remove()
        return
    with contextlib.suppress(OSError):
        _clear(place.path)
    if before is not None:
        place.write(before)


def _read_back(process: Process, path: Path) -> None:
    monitor, state = process.monitor, open_file(path)
    try:
        monitor.call("migrate-set-capabilities", WITH_MEMORY)
        monitor.call("getfd", {"fdname": "memory"}, fds=[state])
        monitor.call("migrate-incoming", {"uri": "fd:memory"})
        event = monitor.wait_event(
            "MIGRATION", timeout_s=LIMIT_S, field="status", among=("completed", "failed")
        )
    except Failed as error:
        # It ends when it cannot read what it is given.
        said = process.said().splitlines()[-2:]
        raise Failed(f"QEMU could not read {path} back: {'; '.join(said) or error}") from error
    finally:
        os.close(state)
    if event["status"] != "completed":
        raise Failed(f"QEMU could not read {path} back")


def _merge(machine: Machine, found: Saved) -> None:
    """Make one disk file of all that lie above the image."""
    # Nodes are numbered from the top, the image being the last.
    arguments = {"device": "disk0", "base-node": f"disk{found.layers + 1}", "auto-dismiss": False}
    what = "put the machine's disk files together"
    qemu_job(machine.process.monitor, "block-stream", arguments, what=what, timeout_s=LIMIT_S)
    for path in machine.place.path.glob(LOWER):
        path.unlink()
