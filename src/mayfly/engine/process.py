"""One QEMU that this process started: its sockets, its monitor, its end."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mayfly.engine.argv import PORTS, Plan, qemu_argv
from mayfly.engine.launch import Isolation, launch
from mayfly.engine.linux import start_time
from mayfly.engine.monitor import Monitor
from mayfly.engine.privileges import USER_NAMESPACES
from mayfly.engine.probe import Qemu
from mayfly.engine.readable import readable
from mayfly.engine.records import Place, Record
from mayfly.errors import Failed, MayflyError, Unavailable
from mayfly.model import Shape, State

SOCKETS = ("qmp", *PORTS)
OUTPUT_BYTES = 4000
OPEN_FILES = 1024
THREADS = 512
MEMORY_BESIDES_GUEST = 4 << 30
DISK_BESIDES_GUEST = 1 << 30
"""A disk layer has tables besides the guest's data, a saved memory has the devices."""
KILL_GRACE_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A running QEMU."""

    pid: int
    handle: int
    """pidfd: readable when it has ended."""
    monitor: Monitor
    place: Path
    output: int
    """Read end of its standard output and error."""

    def ready(self) -> None:
        """Wait until QEMU takes commands; raises ``Failed`` with what it said when it ended."""
        try:
            self.monitor.negotiate()
        except MayflyError as error:
            self.kill()
            raise Failed(f"QEMU did not start: {self.said() or error}") from error

    def connect(self, port: str) -> socket.socket:
        """Connect to one of the machine's ports."""
        return connect_socket(self.place, port)

    def has_ended(self) -> bool:
        """Tell whether it is there no more."""
        return bool(readable([self.handle], 0))

    def said(self) -> str:
        """Give what QEMU itself printed so far."""
        with contextlib.suppress(BlockingIOError):
            return os.read(self.output, OUTPUT_BYTES).decode("utf-8", "replace").strip()
        return ""

    def wait(self, *, timeout_s: float) -> None:
        """Wait for its end; raises ``Unavailable`` when it goes on."""
        if not readable([self.handle], timeout_s):
            raise Unavailable(f"QEMU (pid {self.pid}) did not end within {timeout_s:g} s")
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def kill(self) -> None:
        """End it now, whatever it is doing."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.handle, signal.SIGKILL)
        self.wait(timeout_s=KILL_GRACE_S)

    def let_go(self) -> None:
        """Close our ends; QEMU goes on."""
        self.monitor.close()
        os.close(self.handle)
        os.close(self.output)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The most that one QEMU may take of its host, in bytes."""

    memory: int
    disk: int
    """Of one file."""


def bounds_for(shape: Shape, disk_bytes: int) -> Bounds:
    """Give the bounds of a machine's QEMU: the guest's own size and what QEMU needs besides."""
    guest = shape.memory_mib << 20
    # Snapshots keep what is in the disk layer while the guest writes more, and its memory.
    disk = max(2 * disk_bytes, guest) + DISK_BESIDES_GUEST
    return Bounds(memory=guest + MEMORY_BESIDES_GUEST, disk=disk)


def file_limit(pid: int) -> int:
    """Give the size of the largest file that a QEMU may write."""
    try:
        lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    except OSError:
        return sys.maxsize
    soft = next((line.split()[3] for line in lines if line.startswith("Max file size")), "")
    return int(soft) if soft.isdecimal() else sys.maxsize


def limit_files(pid: int, size: int) -> None:
    """Set the size of the largest file that a QEMU may write, where this process may set it."""
    with contextlib.suppress(PermissionError, ProcessLookupError):
        hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
        most = hard if hard == resource.RLIM_INFINITY else max(size, hard)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, most))


@contextlib.contextmanager
def writing(pid: int, size: int) -> Iterator[None]:
    """Let a QEMU write files of that size for a while."""
    before = file_limit(pid)
    if before < size:
        limit_files(pid, size)
    try:
        yield
    finally:
        if before < size:
            limit_files(pid, before)


def isolation_for(
    qemu: Qemu, bounds: Bounds, *, uid: int | None, kvm: bool, die_with_parent: bool
) -> Isolation:
    """Give what a QEMU is kept from; pure but for the owner of /dev/kvm."""
    limits = [
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_AS, bounds.memory),
        (resource.RLIMIT_FSIZE, bounds.disk),
    ]
    if uid is not None:
        # The limit counts a uid's threads: it can be set only where the uid is this machine's.
        limits.append((resource.RLIMIT_NPROC, THREADS))
    devices: tuple[str, ...] = ("/dev/null", "/dev/urandom")
    groups: tuple[int, ...] = ()
    if kvm:
        devices = (*devices, "/dev/kvm")
        groups = (os.stat("/dev/kvm").st_gid,)
    return Isolation(
        uid=uid,
        groups=groups,
        tree=qemu.root,
        namespaces=namespaces_work(),
        devices=devices,
        die_with_parent=die_with_parent,
        limits=tuple(limits),
    )


def namespaces_work() -> bool:
    """Tell whether this user may make namespaces here."""
    if os.geteuid() == 0:
        return True
    for name, (forbids, _) in USER_NAMESPACES.items():
        with contextlib.suppress(OSError):
            if Path(f"/proc/sys/{name}").read_text().strip() == forbids:
                return False
    return True


def start_process(
    qemu: Qemu, plan: Plan, isolation: Isolation, place: Place, record: Record
) -> tuple[Process, Record]:
    """Start QEMU for a plan (its ``sockets`` are made here) with the pid written down first.

    When this raises, whatever it raises, no process is left.
    """
    with contextlib.ExitStack() as undo:
        # A pipe that nobody has to read: when it is full, what QEMU prints is dropped.
        output, output_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        undo.callback(os.close, output)
        with contextlib.ExitStack() as theirs:
            theirs.callback(os.close, output_write)
            sockets = {name: theirs.enter_context(_listen(place.path, name)) for name in SOCKETS}
            plan = replace(plan, sockets={name: item.fileno() for name, item in sockets.items()})
            words, fds = qemu_argv(qemu, plan), _descriptors(plan)
            child = launch(words, isolation, pass_fds=fds, output=output_write)
            handle = os.pidfd_open(child.pid)
            undo.callback(os.close, handle)
            undo.callback(_end, child.pid, handle)
            started = start_time(child.pid)
            record = replace(record, pid=child.pid, started=started or 0, state=State.STARTING)
            place.write(record)
            # Connected before QEMU even runs: what is sent waits for it, nobody tries again.
            monitor = undo.enter_context(Monitor(connect_socket(place.path, "qmp")))
            child.go()
        undo.pop_all()
    process = Process(
        pid=child.pid, handle=handle, monitor=monitor, place=place.path, output=output
    )
    return process, record


def _end(pid: int, handle: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def _descriptors(plan: Plan) -> list[int]:
    return [
        *(() if plan.memory_fd is None else (plan.memory_fd,)),
        plan.agent_disk_fd,
        *(drive.fd for drive in plan.disks),
        *plan.sockets.values(),
        *plan.network_fds,
    ]


@contextlib.contextmanager
def _inside(directory: Path) -> Iterator[str]:
    """Give a short name of a directory: socket paths are at most 107 bytes long."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _listen(directory: Path, name: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _inside(directory) as short:
        listener.bind(f"{short}/{name}")
    listener.listen(4)
    return listener


def connect_socket(directory: Path, name: str, *, patience_s: float = 10.0) -> socket.socket:
    """Connect to a socket of a machine; raises ``Failed`` when nobody listens."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # A QEMU that is frozen, with a full queue, would keep us for ever.
    connection.setblocking(False)
    deadline = time.monotonic() + patience_s
    while True:
        try:
            with _inside(directory) as short:
                connection.connect(f"{short}/{name}")
            connection.setblocking(True)
            return connection
        except BlockingIOError:
            # The queue of the listener is full for a moment.
            if time.monotonic() > deadline:
                connection.close()
                raise Failed(f"the machine's {name} socket is busy") from None
            time.sleep(0.01)
        except OSError as error:
            connection.close()
            raise Failed(f"cannot reach the machine's {name} socket: {error.strerror}") from error
