"""Points in a machine's life that it can be taken back to: memory, devices and disk.

They lie within the machine's own disk layer, and go with it when it is deleted or suspended.
"""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from mayfly.engine.blockjobs import qemu_job
from mayfly.engine.machine import Machine
from mayfly.engine.monitor import Monitor
from mayfly.engine.ports import hang_up, is_connected, tell_of_hang_up
from mayfly.engine.process import DISK_BESIDES_GUEST
from mayfly.engine.refresh import refresh
from mayfly.engine.template import DISK
from mayfly.errors import Conflict, Failed, Invalid, Missing, Quota

TOP = "disk0"
"""The one disk layer that is written to."""
NAME = re.compile(r"[a-z0-9-]{1,40}")
MOST = 16
"""Snapshots of one machine."""
LIMIT_S = 600.0
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
    nodes = monitor.call("query-named-block-nodes", {"flat": True})
    image: dict[str, Any] = next(
        (node["image"] for node in nodes if node.get("node-name") == TOP), {}
    )
    found = [
        Snapshot(
            name=item["name"],
            created_at=item["date-sec"] + item["date-nsec"] / 1e9,
            memory_bytes=item["vm-state-size"],
        )
        for item in image.get("snapshots", [])
    ]
    return sorted(found, key=lambda snapshot: snapshot.created_at)


def save_snapshot(machine: Machine, name: str) -> None:
    """Remember a machine as it is now; it stands still meanwhile, and goes on also after a failure.

    Raises ``Invalid``, ``Conflict`` (there is one of that name, or shared directories), ``Quota``
    (no room) or ``Failed``.
    """
    check_name(name)
    monitor = machine.process.monitor
    there = [snapshot.name for snapshot in list_snapshots(monitor)]
    if name in there:
        raise Conflict(
            f"machine '{machine.record.id}' has a snapshot '{name}' already",
            hint="delete that one first, or choose another name",
        )
    if len(there) >= MOST:
        raise Quota(f"machine '{machine.record.id}' has {MOST} snapshots: that is the limit")
    _check_shares(machine)
    _let_grow(machine)
    with _standing_still(monitor):
        arguments = {"tag": name, "vmstate": TOP, "devices": [TOP]}
        what = f"save the snapshot '{name}'"
        qemu_job(monitor, "snapshot-save", arguments, what=what, timeout_s=LIMIT_S)


def delete_snapshot(monitor: Monitor, name: str) -> None:
    """Forget a point in a machine's life; raises ``Missing``."""
    _check_there(monitor, name)
    arguments = {"tag": name, "devices": [TOP]}
    what = f"delete the snapshot '{name}'"
    qemu_job(monitor, "snapshot-delete", arguments, what=what, timeout_s=LIMIT_S)


def revert_to(machine: Machine, name: str) -> None:
    """Take a machine back to a snapshot; it runs afterwards, with the right time.

    A session that is open ends, on both sides: what runs in it belongs to another past. Raises
    ``Missing`` or ``Conflict`` with the machine as it was. After ``Failed`` it stands still, and
    must not go on: its memory may be incomplete, or its random numbers those of another run.
    """
    monitor = machine.process.monitor
    _check_there(monitor, name)
    _check_shares(machine)
    ran = monitor.call("query-status").get("running")
    # While it is connected the agent of that time would go on with a session of this time.
    hung_up = hang_up(monitor, "session")
    monitor.call("stop")
    try:
        arguments = {"tag": name, "vmstate": TOP, "devices": [TOP]}
        what = f"go back to the snapshot '{name}'"
        qemu_job(monitor, "snapshot-load", arguments, what=what, timeout_s=LIMIT_S)
        monitor.call("cont")
        if hung_up and not ran:
            tell_of_hang_up(machine.place.path, "session")
        refresh(machine, machine.place.path)
    except BaseException:
        with suppress(Failed):
            monitor.call("stop")
        raise


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


@contextmanager
def _standing_still(monitor: Monitor) -> Iterator[None]:
    """Stop the CPUs for a while, if they run."""
    status = monitor.call("query-status")
    if status.get("status") in CANNOT_RUN:
        raise Conflict(f"the machine does not run any more: {status.get('status')}")
    monitor.call("stop")
    try:
        yield
    finally:
        if status.get("running"):
            monitor.call("cont")


def _let_grow(machine: Machine) -> None:
    """Let QEMU write another memory, and then another whole disk, into the layer."""
    nodes = machine.process.monitor.call("query-named-block-nodes", {"flat": True})
    disk = max(node["image"]["virtual-size"] for node in nodes if node.get("node-name") == TOP)
    now = (machine.place.path / DISK).stat().st_size
    let_write(machine, now + (machine.record.memory_mib << 20) + disk + DISK_BESIDES_GUEST)


def let_write(machine: Machine, size: int) -> None:
    """Raise the limit of the files that QEMU may write, where this process may do that."""
    pid, limit = machine.process.pid, resource.RLIMIT_FSIZE
    with suppress(PermissionError, ProcessLookupError):
        soft, hard = resource.prlimit(pid, limit)
        if soft != resource.RLIM_INFINITY and soft < size:
            resource.prlimit(pid, limit, (size, max(size, hard)))
