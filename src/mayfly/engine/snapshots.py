"""Points in a machine's life that it can be taken back to: memory, devices and disk.

They belong to one run of the machine: they go when it is deleted, and when it is suspended.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from mayfly.engine.blockjobs import qemu_job
from mayfly.engine.machine import Machine
from mayfly.engine.memoryfile import add_memory_file, drop_memory_file, node_of
from mayfly.engine.monitor import WITH_MEMORY, Monitor
from mayfly.engine.ports import hang_up, is_connected, tell_of_hang_up
from mayfly.engine.process import file_limit, limit_files, writing
from mayfly.engine.refresh import refresh
from mayfly.engine.template import DISK
from mayfly.errors import Conflict, Failed, Invalid, Missing, Quota
from mayfly.units import MIB, show_size

TOP = "disk0"
"""The one disk layer that is written to."""
NAME = re.compile(r"[a-z0-9-]{1,40}")
MOST = 16
"""Snapshots of one machine."""
LIMIT_S = 600.0
DEVICES_BYTES = 64 * MIB
"""What a snapshot takes at most besides the memory."""
FULL_BYTES = 4 * MIB
LIMIT = "disk-limit"
"""File in the machine's directory: how large its disk layer might have become without snapshots."""
CANNOT_RUN = frozenset({"shutdown", "io-error", "internal-error", "guest-panicked"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One point in a machine's life."""

    name: str
    created_at: float
    """Seconds since the epoch, by the host's clock."""
    memory_bytes: int
    """What its memory and devices take of the host's disk."""


def check_name(name: str) -> None:
    """Refuse what cannot be the name of a snapshot."""
    if not NAME.fullmatch(name):
        raise Invalid(
            f"'{name}' cannot be the name of a snapshot",
            hint="1 to 40 small letters, digits and hyphens",
        )


def list_snapshots(monitor: Monitor) -> list[Snapshot]:
    """Give the snapshots of a machine, oldest first."""
    kept = {name: snapshots for name, snapshots in _kept(monitor).items() if name != TOP}
    found = [
        Snapshot(
            name=item["name"],
            created_at=item["date-sec"] + item["date-nsec"] / 1e9,
            memory_bytes=item["vm-state-size"],
        )
        for node, snapshots in kept.items()
        for item in snapshots
        if node == node_of(item["name"])
    ]
    return sorted(found, key=lambda snapshot: snapshot.created_at)


def save_snapshot(machine: Machine, name: str) -> None:
    """Remember a machine as it is now; it stands still meanwhile, and goes on also after a failure.

    Raises ``Invalid``, ``Conflict`` (there is one of that name, or shared directories), ``Quota``
    (no room) or ``Failed``.
    """
    check_name(name)
    monitor = machine.process.monitor
    _check_free(machine, name, [snapshot.name for snapshot in list_snapshots(monitor)])
    _check_shares(machine)
    _check_room(machine)
    pid, limit = machine.process.pid, _memory_limit(machine)
    with _standing_still(monitor), writing(pid, limit):
        if file_limit(pid) < limit:
            raise Quota(
                f"machine '{machine.record.id}' may write files of {show_size(file_limit(pid))}, "
                f"and its memory takes up to {show_size(limit)}",
                hint="snapshots need a machine with more disk, or less memory",
            )
        add_memory_file(machine, name)
        try:
            _do(monitor, "snapshot-save", name, f"save the snapshot '{name}'")
        except BaseException as error:
            free = shutil.disk_usage(machine.place.path).free
            drop_memory_file(machine, name)
            if isinstance(error, Failed) and free < FULL_BYTES:
                # QEMU itself speaks of an input/output error.
                raise Quota(f"{error.message}: the disk of this host is full") from error
            raise
    _let_grow(machine)


def delete_snapshot(machine: Machine, name: str) -> None:
    """Forget a point in a machine's life; raises ``Missing``."""
    monitor = machine.process.monitor
    _check_there(monitor, name)
    arguments = {"tag": name, "devices": [TOP, node_of(name)]}
    what = f"delete the snapshot '{name}'"
    qemu_job(monitor, "snapshot-delete", arguments, what=what, timeout_s=LIMIT_S)
    drop_memory_file(machine, name)


def revert_to(machine: Machine, name: str) -> None:
    """Take a machine back to a snapshot; it runs afterwards, with the right time.

    A session that is open ends, on both sides: what runs in it belongs to another past. Raises
    ``Missing`` or ``Conflict`` with the machine as it was. After ``Failed`` it stands still, and
    must not go on: its memory may be incomplete, or its random numbers those of another run.
    """
    monitor = machine.process.monitor
    _check_there(monitor, name)
    _check_shares(machine)
    ran = _checked_status(monitor)
    # While it is connected the agent of that time would go on with a session of this time.
    hung_up = hang_up(monitor, "session")
    monitor.call("stop")
    try:
        _do(monitor, "snapshot-load", name, f"go back to the snapshot '{name}'")
        monitor.call("cont")
        if hung_up and not ran:
            tell_of_hang_up(machine.place.path, "session")
        refresh(machine, machine.place.path)
    except BaseException:
        with suppress(Failed):
            monitor.call("stop")
        raise


def _do(monitor: Monitor, command: str, name: str, what: str) -> None:
    memory = node_of(name)
    monitor.call("migrate-set-capabilities", WITH_MEMORY)
    arguments = {"tag": name, "vmstate": memory, "devices": [TOP, memory]}
    qemu_job(monitor, command, arguments, what=what, timeout_s=LIMIT_S)


def _kept(monitor: Monitor) -> dict[str, list[dict[str, Any]]]:
    """Give what each open disk file has of snapshots."""
    nodes = monitor.call("query-named-block-nodes", {"flat": True})
    return {node["node-name"]: node["image"].get("snapshots", []) for node in nodes}


def _check_free(machine: Machine, name: str, names: list[str]) -> None:
    if name in names:
        raise Conflict(
            f"machine '{machine.record.id}' has a snapshot '{name}' already",
            hint="delete that one first, or choose another name",
        )
    if len(names) >= MOST:
        raise Quota(f"machine '{machine.record.id}' has {MOST} snapshots: that is the limit")


def _check_there(monitor: Monitor, name: str) -> None:
    names = [snapshot.name for snapshot in list_snapshots(monitor)]
    if name not in names:
        raise Missing(
            f"the machine has no snapshot '{name}'",
            hint=f"it has: {', '.join(names)}" if names else "it has none",
        )


def _check_shares(machine: Machine) -> None:
    # What the guest of that time has open there is not what the host's server has open now:
    # its writes might reach other files.
    if is_connected(machine.process.monitor, "share"):
        raise Conflict(
            f"machine '{machine.record.id}' has shared directories, which cannot go back in time",
            hint="use a machine without --share",
        )


def _check_room(machine: Machine) -> None:
    # Before it is tried: while a disk is full, all the machines on it that write are stopped.
    free = shutil.disk_usage(machine.place.path).free
    needed = _memory_limit(machine)
    if free < needed:
        raise Quota(
            f"a snapshot needs up to {show_size(needed)} in {machine.place.path.parent}, "
            f"which has {show_size(free)} free",
            hint="delete a snapshot, or free some space on the disk of this host",
        )


@contextmanager
def _standing_still(monitor: Monitor) -> Iterator[None]:
    """Stop the CPUs for a while, if they run."""
    ran = _checked_status(monitor)
    monitor.call("stop")
    try:
        yield
    finally:
        if ran:
            monitor.call("cont")


def _checked_status(monitor: Monitor) -> bool:
    """Tell whether the CPUs run; raises ``Conflict`` when they never will again."""
    status = monitor.call("query-status")
    if status.get("status") in CANNOT_RUN:
        raise Conflict(f"the machine does not run any more: {status.get('status')}")
    return bool(status.get("running"))


def _memory_limit(machine: Machine) -> int:
    return machine.record.memory_mib * MIB + DEVICES_BYTES


def _let_grow(machine: Machine) -> None:
    """Let the disk layer grow as much as it might before: what is in it now stays in it."""
    pid, note = machine.process.pid, machine.place.path / LIMIT
    try:
        if not note.exists():
            note.write_text(str(file_limit(pid)))
        base = int(note.read_text())
    except (OSError, ValueError):
        return
    now = (machine.place.path / DISK).stat().st_size
    limit_files(pid, min(base + now, sys.maxsize))
