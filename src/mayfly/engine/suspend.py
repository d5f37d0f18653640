"""Suspend a machine: write it to a directory, from which it can go on later, also elsewhere."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mayfly.engine.argv import cpu_model
from mayfly.engine.blockjobs import failure
from mayfly.engine.hostcpu import cpu_of
from mayfly.engine.machine import Machine
from mayfly.engine.monitor import WITH_MEMORY, Monitor
from mayfly.engine.ports import is_connected
from mayfly.engine.process import file_limit
from mayfly.engine.readable import readable
from mayfly.engine.refresh import FEATURE
from mayfly.engine.resume import bring_back, check_here, resume
from mayfly.engine.saved import (
    LOWER,
    MEMORY,
    Saved,
    bring,
    files_of,
    layer,
    write_saved,
)
from mayfly.engine.template import AGENT, DISK, EMPTY, Template
from mayfly.engine.visits import PORTS_BUS
from mayfly.errors import Conflict, Failed, MayflyError, Quota, Unavailable
from mayfly.model import Image, Shape
from mayfly.units import MIB, show_size

FAST = {"max-bandwidth": 1 << 40}
"""Bytes a second; QEMU holds itself back else, as if it wrote to a network."""
__all__ = ["bring_back", "cannot_suspend", "check_here", "flush_saved", "resume", "suspend"]

PIPE_BYTES = 1 << 20
POLL_S = 0.003
SILENCE_S = 60.0
SAVE_LIMIT_S = 600.0
FINISH_LIMIT_S = 10.0
ENDED = frozenset({"none", "completed", "failed", "cancelled"})
DEVICES_BYTES = 64 * MIB
FULL_BYTES = 4 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Files that a machine stands on, besides the image."""

    layers: tuple[Path, ...]
    """Top first."""
    empty: Path
    agent: Path


def cannot_suspend(machine: Machine, template: Template | None) -> str:
    """Give the reason why a machine cannot be suspended now, as far as it shows; "" when it can.

    An open session does not forbid it, but ends: what runs in it gets SIGHUP when the machine goes
    on. Snapshots are lost. ``template`` is what it was cloned from; None when that is gone, or
    when it was resumed.
    """
    monitor = machine.process.monitor
    status = monitor.call("query-status").get("status")
    if status not in ("running", "paused"):
        return f"it does not run any more ({status})"
    if is_connected(monitor, "share"):
        return "it has shared directories, which cannot be suspended"
    if template is None and not _was_resumed(machine):
        return "the template that it was cloned from is gone"
    if template is not None and FEATURE not in template.features:
        return "its agent is of a version that cannot go on at another time"
    reasons = monitor.call("query-migrate").get("blocked-reasons", [])
    return f"QEMU says: {'; '.join(reasons)}" if reasons else ""


def suspend(
    machine: Machine,
    template: Template | None,
    image: Image,
    directory: Path,
    *,
    notes: Mapping[str, Any] | None = None,
    flush: bool = True,
) -> Saved:
    """Write a machine to ``directory``, which must not be there yet; its CPUs stay stopped.

    Whole or not at all, also when the host goes down at any moment. Without ``flush`` the caller
    calls ``flush_saved`` soon: until that is done a host that goes down takes the machine with it,
    as one that runs. Raises ``Conflict`` with the reason when it cannot be
    suspended, ``Quota`` when there is no room, ``Failed``; the machine goes on as before then.
    ``notes`` come back from ``read_saved``.
    """
    reason = cannot_suspend(machine, template)
    if reason:
        raise Conflict(f"machine '{machine.record.id}' cannot be suspended: {reason}")
    if directory.exists():
        raise Conflict(f"there is something in {directory} already")
    chain = _chain(machine, template, image)
    monitor = machine.process.monitor
    ran = bool(monitor.call("query-status").get("running"))
    fresh = directory.with_name(f".{directory.name}.new")
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True, mode=0o700)
        _check_room(machine, directory.parent)
        monitor.call("stop")
        saved = _describe(machine, image, chain, notes or {})
        saved = _write(machine, chain, saved, fresh)
        if flush:
            flush_saved(fresh)
        fresh.rename(directory)
        if flush:
            _flush(directory.parent)
    except BaseException as error:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(directory, ignore_errors=True)
        _go_on(monitor, ran=ran)
        if isinstance(error, OSError):
            raise _no_room(directory.parent, error) from error
        raise
    return saved


def flush_saved(directory: Path) -> None:
    """Have all that was written of a suspended machine on the disk."""
    for path in (*directory.iterdir(), directory, directory.parent):
        _flush(path)


# --- what it stands on ---------------------------------------------------------------------------


def _was_resumed(machine: Machine) -> bool:
    return (machine.place.path / AGENT).exists()


def _chain(machine: Machine, template: Template | None, image: Image) -> Chain:
    place = machine.place.path
    if template is None or _was_resumed(machine):
        lower = sorted(place.glob(LOWER))
        return Chain(layers=(place / DISK, *lower), empty=place / EMPTY, agent=place / AGENT)
    if template.image_sha512 != image.sha512:
        raise Conflict(
            f"image '{image.name}' is another by now than that of machine '{machine.record.id}'"
        )
    path = template.path
    return Chain(layers=(place / DISK, path / DISK), empty=path / EMPTY, agent=path / AGENT)


def _describe(machine: Machine, image: Image, chain: Chain, notes: Mapping[str, Any]) -> Saved:
    monitor, record = machine.process.monitor, machine.record
    accelerator = "kvm" if monitor.call("query-kvm")["enabled"] else "tcg"
    machine_type = monitor.call("qom-get", {"path": "/machine", "property": "type"})
    version = monitor.call("query-version")["qemu"]
    return Saved(
        machine=record.id,
        image=image.name,
        image_sha512=image.sha512,
        template=record.template,
        shape=Shape(cpus=record.cpus, memory_mib=record.memory_mib),
        network=record.network,
        command=record.command,
        machine_type=str(machine_type).removesuffix("-machine"),
        accelerator=accelerator,
        cpu_model=cpu_model(accelerator),
        cpu=cpu_of(monitor, accelerator),
        qemu=f"{version['major']}.{version['minor']}.{version['micro']}",
        vmgenid=_has_vmgenid(monitor),
        layers=len(chain.layers),
        ports=int(monitor.call("qom-get", {"path": PORTS_BUS, "property": "max_ports"})),
        sizes={},
        created_at=time.time(),
        notes=notes,
    )


def _has_vmgenid(monitor: Monitor) -> bool:
    try:
        monitor.call("query-vm-generation-id")
    except Failed:
        return False
    return True


# --- writing -------------------------------------------------------------------------------------


def _write(machine: Machine, chain: Chain, saved: Saved, fresh: Path) -> Saved:
    _save_memory(machine, fresh / MEMORY)
    for index, path in enumerate(chain.layers):
        bring(path, fresh / layer(index))
    bring(chain.empty, fresh / EMPTY)
    bring(chain.agent, fresh / AGENT)
    sizes = {name: (fresh / name).stat().st_size for name in files_of(len(chain.layers))}
    whole = replace(saved, sizes=sizes)
    write_saved(whole, fresh)
    return whole


def _flush(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _save_memory(machine: Machine, path: Path) -> None:
    """Have QEMU write memory and devices; its CPUs are stopped."""
    monitor = machine.process.monitor
    monitor.call("migrate-set-capabilities", WITH_MEMORY)
    monitor.call("migrate-set-parameters", FAST)
    most = machine.record.memory_mib * MIB + DEVICES_BYTES
    with open(path, "xb", buffering=0) as target:
        if file_limit(machine.process.pid) >= most:
            _migrate(monitor, target.fileno())
            state = _finished(monitor, limit_s=SAVE_LIMIT_S)
        else:
            # It may not write a file that is as large: we do, from a pipe.
            _pour_from(monitor, target.fileno())
            state = _finished(monitor, limit_s=FINISH_LIMIT_S)
    if state.get("status") != "completed":
        if shutil.disk_usage(path.parent).free < FULL_BYTES:
            # QEMU itself speaks of an input/output error.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        words = state.get("error-desc", state.get("status"))
        raise failure("QEMU could not save the machine's memory", str(words))


def _migrate(monitor: Monitor, fd: int) -> None:
    monitor.call("getfd", {"fdname": "memory"}, fds=[fd])
    monitor.call("migrate", {"uri": "fd:memory"})


def _pour_from(monitor: Monitor, target: int) -> None:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    # At the end nobody reads any more: if QEMU still writes, it fails.
    with open(reader, "rb", buffering=0):
        with open(writer, "wb", buffering=0):
            with contextlib.suppress(OSError):
                fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            _migrate(monitor, writer)
        while True:
            if not readable([reader], SILENCE_S):
                raise Unavailable(f"QEMU wrote nothing of the machine's memory for {SILENCE_S:g} s")
            if not os.splice(reader, target, PIPE_BYTES):
                return


def _finished(monitor: Monitor, *, limit_s: float) -> dict[str, Any]:
    """Wait until QEMU is done with a migration, however it ended, and say how."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        state: dict[str, Any] = monitor.call("query-migrate")
        status = monitor.call("query-status").get("status")
        # It tells of the end a moment before it is done with it.
        if state.get("status", "none") in ENDED and status != "finish-migrate":
            return state
        time.sleep(POLL_S)
    raise Unavailable("QEMU did not finish with the machine's memory in time")


def _go_on(monitor: Monitor, *, ran: bool) -> None:
    """Let the machine be as it was before it was tried."""
    with contextlib.suppress(MayflyError):
        _finished(monitor, limit_s=FINISH_LIMIT_S)
        if ran:
            monitor.call("cont")


# --- room ----------------------------------------------------------------------------------------


def _check_room(machine: Machine, parent: Path) -> None:
    needed = machine.record.memory_mib * MIB + DEVICES_BYTES
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise Quota(
            f"a suspended machine needs up to {show_size(needed)} in {parent}, "
            f"which has {show_size(free)} free",
            hint="free some space there",
        )


def _no_room(parent: Path, error: OSError) -> MayflyError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return Quota(f"no room for a suspended machine in {parent}", hint="free some space there")
    return Failed(f"cannot write a suspended machine to {parent}: {error.strerror}")
