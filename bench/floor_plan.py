"""Plan the floor process with the engine's own code, so that both start the same QEMU."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.client import BenchError
from mayfly.engine.argv import PORTS, Drive, Plan, qemu_argv
from mayfly.engine.caller import account_of_caller, caller_limits, job_environment
from mayfly.engine.machine import account_message
from mayfly.engine.memory import read_holder
from mayfly.engine.template import AGENT, DISK, EMPTY, STATE, Engine, Template
from mayfly.model import Image

FLOOR = ("/usr/bin/python3", "-I", "-S", str(Path(__file__).with_name("floor.py")))
FIRST = 100
"""Descriptors of QEMU count from here: the floor's own are below."""
LAYER = "disk.qcow2"


@dataclass(frozen=True, slots=True, kw_only=True)
class FloorPlan:
    """What ``bench/floor.py`` reads."""

    work: str
    """An empty directory, left empty."""
    argv: list[str]
    empty: str
    disk: str
    state: str
    """File with the device state; empty for a cold boot."""
    files: list[tuple[int, str, int]]
    """Descriptor in QEMU, path, flags to open it with."""
    sockets: dict[str, int]
    claim: dict[str, Any]
    start: dict[str, Any]

    def write(self, file: Path) -> None:
        """Write it as JSON."""
        file.write_text(json.dumps(asdict(self)))


def clone_plan(engine: Engine, template: Template, image: Image, work: Path) -> FloorPlan:
    """Plan a clone like those of ``mayfly run --no-workdir -- true``."""
    holder = read_holder(template.path)
    if holder is None:
        raise BenchError(f"nobody holds the memory of {template.path}")
    memory = f"/proc/{holder.pid}/fd/{holder.fd}"
    disks = (template.path / DISK, image.disk)
    return _plan(engine, template, image, work, (memory, disks, str(template.path / STATE)))


def cold_plan(
    engine: Engine, template: Template, image: Image, work: Path, memory_fd: int
) -> FloorPlan:
    """Plan a cold boot of the same machine, with an empty memory object of this process."""
    memory = f"/proc/{os.getpid()}/fd/{memory_fd}"
    return _plan(engine, template, image, work, (memory, (image.disk,), ""))


def _plan(
    engine: Engine,
    template: Template,
    image: Image,
    work: Path,
    source: tuple[str, tuple[Path, ...], str],
) -> FloorPlan:
    memory, disks, state = source
    if engine.qemu.root:
        raise BenchError(f"the floor cannot run a QEMU that lives in a tree: {engine.qemu.root}")
    # The layer and, but for a cold boot, the template's disk are qcow2.
    formats = ["qcow2"] * len(disks) + [image.format]
    readable = [(memory, os.O_RDWR), (LAYER, os.O_RDWR)]
    readable += [(str(path), os.O_RDONLY) for path in (*disks, template.path / AGENT)]
    files = [(FIRST + at, path, flags) for at, (path, flags) in enumerate(readable)]
    numbers = [number for number, _, _ in files]
    sockets = {name: numbers[-1] + 1 + at for at, name in enumerate(("qmp", *PORTS))}
    drives = zip(numbers[1:-1], formats, strict=True)
    plan = Plan(
        name="mayfly-floor",
        shape=template.shape,
        accelerator=engine.accelerator,
        memory_fd=numbers[0],
        share_memory=not state,
        incoming=bool(state),
        disks=tuple(Drive(fd=number, format=format_) for number, format_ in drives),
        agent_disk_fd=numbers[-1],
        sockets=sockets,
    )
    return FloorPlan(
        work=str(work),
        argv=qemu_argv(engine.qemu, plan),
        empty=str(template.path / EMPTY),
        disk=LAYER,
        state=state,
        files=files,
        sockets=sockets,
        claim=_claim(),
        start=_start(),
    )


def _claim() -> dict[str, Any]:
    account = account_message(account_of_caller())
    return {"type": "claim", "account": account, "root": True, "network": None, "shares": []}


def _start() -> dict[str, Any]:
    limits = {name: list(pair) for name, pair in caller_limits().items()}
    return {
        "type": "start",
        "argv": ["true"],
        "env": job_environment(os.environ, (), tty=False),
        "cwd": account_of_caller().home,
        "umask": 0o22,
        "limits": limits,
        "tty": None,
        "root": False,
        "stdin": True,
        "workdir": None,
    }
