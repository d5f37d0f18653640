"""The file that holds the memory of one snapshot, beside the machine's disk layer.

A file of its own can be thrown away: what QEMU writes of a memory into the disk layer itself stays
there when the disk of the host is full, and the machine would have no room left either.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from mayfly.engine.blockjobs import qemu_job
from mayfly.engine.machine import Machine
from mayfly.engine.monitor import Monitor
from mayfly.engine.records import no_room
from mayfly.errors import Failed

PREFIX = "memory-"
FILES = "snapshot-*.qcow2"
CREATE_LIMIT_S = 60.0
CACHE = {"direct": False, "no-flush": True}
"""As the machine's own disk: it does not outlive its host."""


def node_of(name: str) -> str:
    """Give QEMU's name for the file of a snapshot: at most 31 letters."""
    return PREFIX + hashlib.sha256(name.encode()).hexdigest()[:12]


def file_of(place: Path, name: str) -> Path:
    """Give the path of the file of a snapshot."""
    return place / f"snapshot-{name}.qcow2"


def add_memory_file(machine: Machine, name: str) -> None:
    """Make an empty file and have QEMU open it; nothing is left when that fails."""
    monitor, node = machine.process.monitor, node_of(name)
    path = file_of(machine.place.path, name)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise no_room(machine.place.path, error) from error
    try:
        opened = monitor.call("add-fd", {"opaque": node}, fds=[fd])
        file = {"driver": "file", "node-name": f"{node}-file", "locking": "off", "cache": CACHE}
        file["filename"] = f"/dev/fdset/{opened['fdset-id']}"
        monitor.call("blockdev-add", file)
        options = {"options": {"driver": "qcow2", "file": f"{node}-file", "size": 1 << 20}}
        what = "make a file for a snapshot"
        qemu_job(monitor, "blockdev-create", options, what=what, timeout_s=CREATE_LIMIT_S)
        image = {"driver": "qcow2", "node-name": node, "file": f"{node}-file", "cache": CACHE}
        monitor.call("blockdev-add", image)
    except BaseException:
        drop_memory_file(machine, name)
        raise
    finally:
        os.close(fd)


def drop_memory_file(machine: Machine, name: str) -> None:
    """Have QEMU close the file, as far as it has it open, and remove it."""
    monitor, node = machine.process.monitor, node_of(name)
    # However far it came.
    for one in (node, f"{node}-file"):
        with contextlib.suppress(Failed):
            monitor.call("blockdev-del", {"node-name": one})
    path = file_of(machine.place.path, name)
    with contextlib.suppress(FileNotFoundError):
        # QEMU closes its descriptor only while the CPUs run: the room is wanted now.
        os.truncate(path, 0)
        path.unlink()
    with contextlib.suppress(Failed):
        close_unused(monitor)


def close_unused(monitor: Monitor) -> None:
    """Have QEMU close the descriptors of files that it needs no more; it does when the CPUs run."""
    nodes = {node["node-name"] for node in monitor.call("query-named-block-nodes", {"flat": True})}
    for fdset in monitor.call("query-fdsets"):
        names = {str(item.get("opaque")) for item in fdset["fds"]}
        if any(name.startswith(PREFIX) for name in names) and not names & nodes:
            monitor.call("remove-fd", {"fdset-id": fdset["fdset-id"]})
