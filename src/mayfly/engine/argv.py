"""From a plan of a machine to QEMU's argument list: pure.

Template and clones must have the same devices in the same places, so both are written here.
Files reach QEMU as descriptors (``/dev/fdset/N``), never as paths: it needs no file system.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from mayfly.engine.probe import Qemu
from mayfly.model import Shape

CONSOLE_BYTES = 1 << 18
"""How much of the serial console is kept; older output is forgotten. A power of two."""
TRANSLATION_CACHE_MIB = 64
EMULATED_CPU = "max,erms=off,fsrm=off"
"""All that the emulator can do, but for fast string moves: it runs `rep movsb` byte by byte."""
MAC = "52:54:00:6d:66:01"
"""The same in every machine: each has its network to itself."""
NO_NETWORK = ("-netdev", "hubport,id=n0,hubid=0")
PORTS = ("control", "session", "share")
PORTS_MOST = 31
"""Of the bus, ports that are added later included."""
DISK_CACHES = {
    "unsafe": {"direct": False, "no-flush": True},
    "writeback": {"direct": False, "no-flush": False},
    "none": {"direct": True, "no-flush": False},
}
"""QEMU's names. A machine does not outlive its host: where flushes are left out, only time is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drive:
    """An open disk file."""

    fd: int
    format: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that decides QEMU's arguments."""

    name: str
    shape: Shape
    accelerator: str
    memory_fd: int | None
    """A memory object that holds the guest's memory; None for one of QEMU's own."""
    share_memory: bool
    """True for a template in the making: what the guest writes reaches the memory object."""
    incoming: bool
    """True for a clone: wait for the device state."""
    disks: tuple[Drive, ...]
    """Top layer first; only the first is written to."""
    agent_disk_fd: int
    sockets: dict[str, int]
    """Listening sockets: ``qmp`` and one for each of ``PORTS``."""
    network: tuple[str, ...] = NO_NETWORK
    network_fds: tuple[int, ...] = ()
    cpu_model: str = ""
    disk_cache: str = "unsafe"
    """One of ``DISK_CACHES``; clones of one template may have different ones."""
    ports_most: int = PORTS_MOST


def cpu_model(accelerator: str) -> str:
    """Give the CPU model for one accelerator: all that the host or the emulator can do."""
    return "host" if accelerator == "kvm" else EMULATED_CPU


def qemu_argv(qemu: Qemu, plan: Plan) -> list[str]:
    """Give the whole argument list."""
    return [
        qemu.path,
        *_machine(qemu, plan),
        *_memory(plan),
        *_disks(plan),
        *_ports(plan),
        *_network(plan),
        *_identity(qemu),
        *(("-S", "-incoming", "defer") if plan.incoming else ()),
        *(("-sandbox", _SANDBOX) if qemu.has_sandbox else ()),
    ]


_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


def _machine(qemu: Qemu, plan: Plan) -> list[str]:
    accelerator = plan.accelerator
    if accelerator == "tcg":
        accelerator = f"tcg,tb-size={TRANSLATION_CACHE_MIB}"
    return [
        *("-name", plan.name),
        *("-nodefaults", "-no-user-config", "-display", "none"),
        *("-machine", f"{qemu.machine_type},memory-backend=ram0,dump-guest-core=off,usb=off"),
        *("-accel", accelerator),
        *("-cpu", plan.cpu_model or cpu_model(plan.accelerator)),
        *("-smp", str(plan.shape.cpus)),
        *("-m", f"{plan.shape.memory_mib}M"),
        *("-rtc", "base=utc,clock=host"),
        *("-boot", "strict=on"),
        # A guest that panics, reboots or powers off is stopped, so that its console can be read.
        *("-action", "reboot=shutdown,shutdown=pause"),
        *("-global", "ICH9-LPC.disable_s3=1"),
    ]


def _memory(plan: Plan) -> list[str]:
    share = "on" if plan.share_memory else "off"
    options = f"id=ram0,size={plan.shape.memory_mib}M,share={share},dump=off,merge=off"
    if plan.memory_fd is None:
        return ["-object", f"memory-backend-ram,{options}"]
    return ["-object", f"memory-backend-file,mem-path=/proc/self/fd/{plan.memory_fd},{options}"]


def _disks(plan: Plan) -> list[str]:
    words: list[str] = []
    nodes: list[dict[str, object]] = []
    for index, drive in enumerate((*plan.disks, Drive(fd=plan.agent_disk_fd, format="raw"))):
        words += ["-add-fd", f"fd={drive.fd},set={index + 1}"]
        # What is below is the same for all machines: read through the page cache, it is read once.
        cache = DISK_CACHES["unsafe" if index else plan.disk_cache]
        nodes.append(_node(index, drive, cache, writable=index == 0))
    *layers, agent = nodes
    for upper, lower in pairwise(layers):
        upper["backing"] = lower["node-name"]
    if layers[-1]["driver"] == "qcow2":
        # Whatever the file itself names as its backing file is not opened.
        layers[-1]["backing"] = None
    agent["node-name"] = "agent"
    for node in (*reversed(layers), agent):
        words += ["-blockdev", json.dumps(node)]
    # A disk that may not grow any more stops its machine, and the guest is not left guessing.
    root = "virtio-blk-pci,drive=disk0,id=root,bootindex=1,serial=mayfly-root,werror=stop"
    words += ["-device", root]
    words += ["-device", "virtio-blk-pci,drive=agent,id=agentdisk,serial=mayfly-agent"]
    return words


def _node(
    index: int, drive: Drive, cache: Mapping[str, bool], *, writable: bool
) -> dict[str, object]:
    file = {"driver": "file", "filename": f"/dev/fdset/{index + 1}", "locking": "off"}
    return {
        "driver": drive.format,
        "node-name": f"disk{index}",
        "read-only": not writable,
        "discard": "unmap",
        "cache": cache,
        "file": {**file, "cache": cache, "discard": "unmap"},
    }


def _ports(plan: Plan) -> list[str]:
    words = ["-chardev", f"socket,id=qmp,server=on,wait=off,fd={plan.sockets['qmp']}"]
    words += ["-mon", "chardev=qmp,mode=control"]
    words += ["-chardev", f"ringbuf,id=console,size={CONSOLE_BYTES}"]
    words += ["-device", "isa-serial,chardev=console,id=serial0"]
    words += ["-device", f"virtio-serial-pci,id=ports,max_ports={plan.ports_most}"]
    for number, name in enumerate(PORTS, start=1):
        words += ["-chardev", f"socket,id={name},server=on,wait=off,fd={plan.sockets[name]}"]
        words += [
            "-device",
            f"virtserialport,bus=ports.0,nr={number},chardev={name},name=org.mayfly.{name},id=p{name}",
        ]
    return words


def _network(plan: Plan) -> list[str]:
    device = f"virtio-net-pci,netdev=n0,id=nic0,mac={MAC},romfile="
    return [*plan.network, "-device", device]


def _identity(qemu: Qemu) -> list[str]:
    words = ["-object", "rng-builtin,id=rng0", "-device", "virtio-rng-pci,rng=rng0,id=rngdev"]
    if qemu.has_vmgenid:
        words += ["-device", "vmgenid,guid=auto"]
    return words
