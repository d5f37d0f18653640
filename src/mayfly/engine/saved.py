"""A suspended machine: a directory with its memory, its disk against the image, and what it was.

    saved.json    what it was, and what it needs to go on; without it the rest does not count
    memory        memory and devices, as QEMU writes them
    disk-0.qcow2  its disk layer; below it disk-1.qcow2 and so on; below them all, the image
    empty.qcow2   a disk layer with nothing in it, for the machine that goes on from here
    agent.iso     the agent disk

The directory can be carried to another host that has the image. Files may be hard links to those
of the machine and of its template: none of them is ever written to again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mayfly.engine import memory
from mayfly.engine.template import AGENT, EMPTY
from mayfly.errors import Conflict, Failed, Missing, Unavailable
from mayfly.model import Shape

SAVED_FORMAT = 2
"""Another one also when the machine's devices, or their places, are others."""
FORMATS = (1, SAVED_FORMAT)
"""Those that can be read."""
PORTS_BEFORE = 8
"""Ports of the bus in a machine of format 1."""
META = "saved.json"
META_BYTES = 1 << 20
MEMORY = "memory"
LOWER = "layer-*.qcow2"
"""In the directory of a machine that was resumed: its disk files but the top one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """What a suspended machine was, and what it needs to go on."""

    machine: str
    """Its id."""
    image: str
    image_sha512: str
    template: str
    shape: Shape
    network: str
    command: str
    machine_type: str
    accelerator: str
    cpu_model: str
    cpu: Mapping[str, Any]
    """What the guest's CPU can do, in QEMU's words."""
    qemu: str
    """Version of the QEMU that saved it."""
    vmgenid: bool
    layers: int
    """How many disk files lie above the image."""
    ports: int
    """For how many ports its bus has room."""
    sizes: Mapping[str, int]
    """The length of every file, in bytes."""
    created_at: float
    """Seconds since the epoch."""
    notes: Mapping[str, Any]
    """What its keeper wants to know of it, such as whom it belongs to."""


def layer(index: int) -> str:
    """Give the name of a disk file; 0 is on top."""
    return f"disk-{index}.qcow2"


def lower(index: int) -> str:
    """Give the name of a disk file of a machine that was resumed; 1 is the one below the top."""
    return f"layer-{index:02}.qcow2"


def bring(source: Path, target: Path) -> None:
    """Give a file another name, or copy it to another file system."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EMLINK, errno.EPERM):
            raise
        with open(source, "rb") as file:
            memory.save(file.fileno(), target)


def files_of(layers: int) -> list[str]:
    """Name the files that a saved machine with so many disk layers has, besides its description."""
    return [MEMORY, EMPTY, AGENT, *map(layer, range(layers))]


def write_saved(saved: Saved, directory: Path) -> None:
    """Write the description."""
    text = json.dumps({"format": SAVED_FORMAT, **asdict(saved)})
    (directory / META).write_text(text, encoding="ascii")


def read_saved(directory: Path) -> Saved:
    """Read what was saved.

    Raises ``Missing`` when there is nothing, ``Unavailable`` when a later version wrote it,
    ``Failed`` when it is spoiled or not whole.
    """
    path = directory / META
    try:
        with open(path, "rb") as file:
            stored: Any = json.loads(file.read(META_BYTES))
        if stored["format"] not in FORMATS:
            raise Unavailable(f"{path} was written by another version of Mayfly")
        saved = _parse(stored)
    except FileNotFoundError as error:
        raise Missing(f"no saved machine in {directory}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Failed(f"cannot read {path}: {error}", hint=_SPOILED) from error
    _check_files(saved, directory)
    return saved


_TEXTS = (
    *("machine", "image", "image_sha512", "template", "network", "command"),
    *("machine_type", "accelerator", "cpu_model", "qemu"),
)
_SPOILED = "it cannot go on: delete it, or copy it again from where it was made"


def _parse(stored: dict[str, Any]) -> Saved:
    texts = {name: _is(stored[name], str) for name in _TEXTS}
    sides = {name: _is(stored["shape"][name], int) for name in ("cpus", "memory_mib")}
    return Saved(
        shape=Shape(**sides),
        cpu=_is(stored["cpu"], dict),
        vmgenid=_is(stored["vmgenid"], bool),
        layers=_is(stored["layers"], int),
        ports=_is(stored.get("ports", PORTS_BEFORE), int),
        sizes={name: _is(size, int) for name, size in stored["sizes"].items()},
        created_at=float(stored["created_at"]),
        notes=_is(stored["notes"], dict),
        **texts,
    )


def _is(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{value!r:.80} is no {kind.__name__}")
    return value


def _check_files(saved: Saved, directory: Path) -> None:
    if not 1 <= saved.layers <= len(saved.sizes) or set(saved.sizes) != set(files_of(saved.layers)):
        raise Failed(f"{directory / META} does not name its files", hint=_SPOILED)
    for name, size in saved.sizes.items():
        try:
            found = (directory / name).stat().st_size
        except OSError as error:
            raise Failed(f"{directory / name}: {error.strerror}", hint=_SPOILED) from error
        if found != size:
            raise Failed(f"{directory / name} has {found} bytes, not {size}", hint=_SPOILED)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a saved machine; raises ``Conflict`` when another process does, ``Missing``."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Missing(f"no saved machine in {directory}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(f"the machine in {directory} is just being resumed") from error
        yield
    finally:
        os.close(fd)
