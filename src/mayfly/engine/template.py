"""Templates: an image booted once and frozen, from which machines are cloned."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mayfly.config import Paths, Settings
from mayfly.engine import memory
from mayfly.engine.agentdisk import disk_key
from mayfly.engine.argv import cpu_model
from mayfly.engine.context import find_context
from mayfly.engine.probe import Qemu
from mayfly.errors import Conflict, Missing, Quota
from mayfly.model import Image, Shape
from mayfly.units import MIB, show_size

TEMPLATE_FORMAT = 2
META = "template.json"
STATE = "state"
MEMORY = "memory"
DISK = "disk.qcow2"
EMPTY = "empty.qcow2"
AGENT = "agent.iso"
FILES = (STATE, MEMORY, DISK, EMPTY, AGENT)

UNUSED_S = 7 * 86400.0
"""After so long without use a template is removed when another is made."""

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What a machine on this host is made with."""

    paths: Paths
    settings: Settings
    qemu: Qemu
    accelerator: str
    """``kvm`` or ``tcg``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A frozen machine."""

    key: str
    path: Path
    image: str
    image_sha512: str
    shape: Shape
    kernel: str
    os: str
    init: str
    features: tuple[str, ...]
    boot_s: float
    """Seconds from starting QEMU to the agent's greeting: what a cold boot costs."""
    settled: str
    samples: tuple[str, ...]
    """Random numbers that the template drew itself: no clone may ever show them."""
    files: tuple[tuple[str, int, int], ...]
    """Name, size and mtime_ns of each file when the template was frozen."""
    created_at: float
    context: str = ""
    """Digest of what the site gave the image; "" for nothing."""


def template_key(engine: Engine, image: Image, shape: Shape) -> str:
    """Name a template by everything that must be the same to restore from it."""
    parts: tuple[object, ...] = (
        TEMPLATE_FORMAT,
        image.sha512,
        engine.qemu.identity,
        engine.qemu.machine_type,
        engine.accelerator,
        cpu_model(engine.accelerator),
        _host_cpu() if engine.accelerator == "kvm" else "",
        disk_key(),
        shape.cpus,
        shape.memory_mib,
    )
    context = find_context(engine.paths.contexts, image.name)
    if context is not None:
        parts = (*parts, context.digest)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


def _host_cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    wanted = ("model name", "flags", "microcode", "stepping")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))


def check_fits(shape: Shape) -> None:
    """Refuse what this host can never run."""
    cpus = len(os.sched_getaffinity(0))
    if shape.cpus > cpus:
        raise Quota(f"{shape.cpus} CPUs were asked for; this host has {cpus}")
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if shape.memory_mib * MIB > total:
        asked = show_size(shape.memory_mib * MIB)
        raise Quota(f"{asked} of memory were asked for; this host has {show_size(total)}")


def find_template(engine: Engine, image: Image, shape: Shape) -> Template | None:
    """Give the template if there is a whole and unspoiled one."""
    path = engine.paths.templates / template_key(engine, image, shape)
    try:
        stored: dict[str, Any] = json.loads((path / META).read_text())
        if stored.pop("format") != TEMPLATE_FORMAT:
            return None
        shape = Shape(**stored.pop("shape"))
        lists: dict[str, Any] = {n: tuple(stored.pop(n)) for n in ("features", "samples")}
        files = tuple((str(name), int(size), int(at)) for name, size, at in stored.pop("files"))
        template = Template(**stored, **lists, path=path, shape=shape, files=files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return template if files and files == stamp(path) else None


def stamp(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Give name, size and mtime of a template's files; () when one is missing."""
    try:
        stats = [(name, (path / name).stat()) for name in FILES]
    except OSError:
        return ()
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


def write_template(template: Template, directory: Path) -> None:
    """Write down what a template in ``directory`` is; without this file it does not count."""
    values = asdict(template)
    del values["path"]
    (directory / META).write_text(json.dumps({"format": TEMPLATE_FORMAT, **values}))


@contextlib.contextmanager
def template_lock(engine: Engine, key: str, report: Report) -> Iterator[None]:
    """Hold the right to make or load one template; waits for whoever has it."""
    engine.paths.templates.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = engine.paths.templates / f"{key}.lock"
    fd = _locked(file, report)
    while not _is_still(file, fd):
        # Whoever had it removed the template, and this file with it.
        os.close(fd)
        fd = _locked(file, report)
    try:
        yield
    finally:
        os.close(fd)


def _locked(file: Path, report: Report) -> int:
    fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("waiting for another command that is making this template")
            fcntl.flock(fd, fcntl.LOCK_EX)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _is_still(file: Path, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(file), os.fstat(fd))
    except FileNotFoundError:
        return False


def open_memory(engine: Engine, template: Template, report: Report) -> int:
    """Give a descriptor of the template's sealed memory, reading it back from disk if need be."""
    hours = engine.settings.template_hours
    fd = _held_memory(template, least_s=hours * 1800)
    if fd is not None:
        return fd
    with template_lock(engine, template.key, report):
        # Another command may have seen to it while this one waited.
        fd = _held_memory(template, least_s=hours * 1800)
        if fd is not None:
            return fd
        fd = _held_memory(template, least_s=0)
        if fd is None:
            report("reading the template's memory back from disk")
            size = template.shape.memory_mib << 20
            fd = memory.load(template.image, template.path / MEMORY, size)
        title = f"{template.image} {template.shape.cpus} CPU {template.shape.memory_mib} MiB"
        try:
            memory.hold(template.path, fd, title=title, hours=hours)
        except BaseException:
            os.close(fd)
            raise
    return fd


def _held_memory(template: Template, *, least_s: float) -> int | None:
    """Open the memory if it is held for so many seconds more."""
    holder = memory.read_holder(template.path)
    if holder is None or holder.until - time.time() <= least_s:
        return None
    return memory.from_holder(holder, template.shape.memory_mib << 20)


def remove_template(path: Path) -> None:
    """Remove a template and end the process that holds its memory; machines made from it go on.

    Raises ``Conflict`` when another command is making it or reading it back.
    """
    file = path.with_name(f"{path.name}.lock")
    lock = _try_lock(file)
    if lock is None:
        raise Conflict(
            f"template {path.name[:12]} is just being made or read back by another command"
        )
    try:
        remove_template_files(path)
        file.unlink(missing_ok=True)
    finally:
        os.close(lock)


def remove_template_files(path: Path) -> None:
    """Remove what there is of a template; the caller holds its lock."""
    memory.end_holder(path)
    shutil.rmtree(path, ignore_errors=True)


def sweep_templates(templates: Path) -> None:
    """Remove what killed commands left of templates that they were making."""
    for path in templates.glob(".*"):
        lock = _try_lock(templates / f"{path.name[1:].partition('-')[0]}.lock")
        if lock is not None:
            remove_template_files(path)
            os.close(lock)


def _try_lock(file: Path) -> int | None:
    fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def remove_stale(engine: Engine, fresh: Template) -> None:
    """Remove templates of the same name whose image is another by now, and those long unused."""
    for path in engine.paths.templates.iterdir():
        if path == fresh.path or path.name.startswith(".") or not path.is_dir():
            continue
        # What cannot be read, is in use, or is gone meanwhile, is left alone.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, Conflict):
            stored = json.loads((path / META).read_text())
            replaced = stored["image"] == fresh.image and stored["image_sha512"] != (
                fresh.image_sha512
            )
            if replaced or time.time() - _last_used(path) > UNUSED_S:
                remove_template(path)


def _last_used(path: Path) -> float:
    """Give when a template's memory was last held, in seconds since the epoch."""
    return max(file.stat().st_mtime for file in (path / META, *path.glob("holder-*.json")))


def open_file(path: Path, *, write: bool = False) -> int:
    """Open a disk file for QEMU; raises ``Missing``."""
    try:
        return os.open(path, (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC)
    except OSError as error:
        raise Missing(
            f"cannot open {path}: {error.strerror}",
            hint="if it was removed just now, run the command again: it is made anew",
        ) from error
