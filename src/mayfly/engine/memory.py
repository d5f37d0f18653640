"""A template's memory: a sealed memory object that clones map privately and nobody can write.

The object lives as long as some process has it open. Without a host service that process is a
sleeper which does nothing else; when it is gone (a reboot, its time is up) the memory is read back
from the template's directory. QEMU 7.2 opens memory files for writing even to map them privately,
so that only seals (memfd_create(2), fcntl(2) F_SEAL_WRITE), not file modes, can protect them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from mayfly.config import host_id
from mayfly.engine.launch import keep_only
from mayfly.engine.linux import start_time
from mayfly.errors import Failed, Quota

HOLDER = f"holder-{host_id()}.json"
"""A template may lie in a home that several hosts share; its memory is held on each."""
SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
COPY_BYTES = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The process that holds a template's memory open."""

    pid: int
    started: int
    fd: int
    until: float
    """Seconds since the epoch at which it ends by itself."""


def new_memory(name: str, size: int) -> int:
    """Make an empty memory object of ``size`` bytes, not yet sealed."""
    fd = os.memfd_create(f"mayfly-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    return fd


def seal(fd: int) -> None:
    """Make the object unwritable for ever; every writable shared mapping must be gone."""
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)


def is_sealed(fd: int) -> bool:
    """Tell whether all seals are set."""
    return fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALS == SEALS


def save(fd: int, path: Path) -> None:
    """Write the object to a sparse file and onto the disk."""
    size = os.fstat(fd).st_size
    out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    try:
        os.ftruncate(out, size)
        _copy_data(fd, out, size)
        os.fsync(out)
    finally:
        os.close(out)


def load(name: str, path: Path, size: int, *, sealed: bool = True) -> int:
    """Read a saved object back, sealed unless one machine alone shall have it.

    Raises ``Failed`` when the file is not there or not whole, ``Quota`` when memory is short.
    """
    try:
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Failed(f"cannot open {path}: {error.strerror}") from error
    with open(source, "rb"):
        if os.fstat(source).st_size != size:
            raise Failed(f"{path} has {os.fstat(source).st_size} bytes, not {size}")
        return _load(name, path, source, size, sealed=sealed)


def _load(name: str, path: Path, source: int, size: int, *, sealed: bool) -> int:
    fd = new_memory(name, size)
    try:
        _copy_data(source, fd, size)
        if sealed:
            seal(fd)
    except OSError as error:
        os.close(fd)
        raise Quota(f"cannot read {path} into memory: {error.strerror}") from error
    except BaseException:
        os.close(fd)
        raise
    return fd


def _copy_data(source: int, target: int, size: int) -> None:
    at = 0
    while at < size:
        try:
            start = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # Only a hole is left.
            raise
        end = os.lseek(source, start, os.SEEK_HOLE)
        os.lseek(target, start, os.SEEK_SET)
        while start < end:
            count = os.sendfile(target, source, start, min(COPY_BYTES, end - start))
            if count == 0:
                raise Failed("a template's memory file was cut short while it was read")
            start += count
        at = end


def hold(directory: Path, fd: int, *, title: str, hours: int) -> None:
    """Start a process that keeps the object open for ``hours``, and write down which.

    It takes the place of the one that was written down before, which ends.
    """
    before = read_holder(directory)
    seconds = hours * 3600
    go_read, go_write = os.pipe()
    status_read, status_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        # With its own end for writing open it would never see that this process ended.
        os.close(go_write)
        _sleep((go_read, status_write), fd, [f"mayfly-template {title}", str(seconds)])
    os.close(go_read)
    os.close(status_write)
    # Until it is written down it only waits, and ends when this process does.
    with os.fdopen(go_write, "wb", buffering=0) as go:
        started = start_time(pid)
        if started is None:
            raise Failed("the process that should hold a template's memory ended at once")
        holder = Holder(pid=pid, started=started, fd=fd, until=time.time() + seconds)
        write_holder(directory, holder)
        go.write(b"1")
    # Until it executes it has whatever this process had open, locks too.
    with os.fdopen(status_read, "rb") as status:
        status.read()
    if before is not None:
        _end(before)


def _sleep(pipes: tuple[int, int], fd: int, argv: list[str]) -> None:
    """Never returns: the child that will hold ``fd``."""
    try:
        os.setsid()
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        go, status = pipes
        os.set_inheritable(fd, True)
        started = os.read(go, 1) == b"1"
        keep_only((fd,), status)
        if started:
            os.execv("/usr/bin/sleep", argv)
    finally:
        os._exit(127)


def write_holder(directory: Path, holder: Holder) -> None:
    """Write down who holds the memory of the template in ``directory``."""
    fresh = directory / f".{HOLDER}.{os.getpid()}"
    try:
        fresh.write_text(json.dumps(asdict(holder)))
        fresh.replace(directory / HOLDER)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise Quota(
            f"cannot write to {directory}: {error.strerror}", hint="free some space there"
        ) from error


def read_holder(directory: Path) -> Holder | None:
    """Give the living holder of a template's memory, or None."""
    try:
        holder = Holder(**json.loads((directory / HOLDER).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return holder if start_time(holder.pid) == holder.started else None


def from_holder(holder: Holder, size: int) -> int | None:
    """Open the object that a holder has; None when it is not what it should be."""
    try:
        fd = os.open(f"/proc/{holder.pid}/fd/{holder.fd}", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if os.fstat(fd).st_size == size and is_sealed(fd):
            return fd
    except OSError:
        pass  # Not a memory object at all: the number was reused.
    os.close(fd)
    return None


def end_holder(directory: Path) -> None:
    """End the process that holds a template's memory, if there is one."""
    holder = read_holder(directory)
    if holder is not None:
        _end(holder)


def _end(holder: Holder) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(holder.pid, signal.SIGKILL)
