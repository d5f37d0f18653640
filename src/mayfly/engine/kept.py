"""Machines that stay after their command: wake one, enter it, read its console, remove it."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mayfly.engine.monitor import Monitor
from mayfly.engine.process import Process, connect_socket
from mayfly.engine.records import (
    Place,
    Record,
    is_alive,
    open_place,
    read_record,
)
from mayfly.engine.session.job import JobRequest, JobResult, Stdio
from mayfly.engine.session.run import run_job
from mayfly.engine.watch import CONSOLE_LOG, Watch, explained, save_console
from mayfly.errors import Failed

LEAVE = b"\x1d"
"""Ctrl-], as telnet has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A machine that nobody else looks after, held by this process."""

    record: Record
    place: Place
    process: Process


@contextlib.contextmanager
def held_machine(machines: Path, name: str) -> Iterator[Held]:
    """Hold a kept machine; raises ``Missing``, ``Conflict`` (in use) or ``Failed`` (it ended)."""
    place = open_place(machines, name)
    try:
        record = read_record(place.path)
        if not is_alive(record):
            raise Failed(
                f"machine '{name}' is not running any more",
                hint=f"'mayfly machine delete {name}' removes what is left of it",
            )
        process = _process(record, place)
        try:
            process.monitor.negotiate()
            yield Held(record=record, place=place, process=process)
        finally:
            process.let_go()
    finally:
        place.release()


def _process(record: Record, place: Place) -> Process:
    with contextlib.ExitStack() as undo:
        monitor = undo.enter_context(Monitor(connect_socket(place.path, "qmp")))
        # Its real output went to whoever started it.
        output = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        undo.callback(os.close, output)
        try:
            handle = os.pidfd_open(record.pid)
        except ProcessLookupError as error:
            raise Failed(f"machine '{record.id}' ended just now") from error
        undo.pop_all()
    return Process(pid=record.pid, handle=handle, monitor=monitor, place=place.path, output=output)


def enter(held: Held, request: JobRequest, report: Callable[[str], None]) -> JobResult:
    """Wake a machine, run a command in it as its user, and stop it again."""
    _check_runs(held)
    held.process.monitor.call("cont")
    try:
        with held.process.connect("session") as port, Watch(held.process) as watch:
            result = run_job(port, request, Stdio(), machine_gone=watch.fd, report=report)
            return explained(result, watch)
    finally:
        with contextlib.suppress(Failed):
            held.process.monitor.call("stop")


def _check_runs(held: Held) -> None:
    name = held.record.id
    if held.process.monitor.call("query-status").get("status") == "shutdown":
        raise Failed(
            f"machine '{name}' has shut down: nothing runs in it any more",
            hint=f"'mayfly machine logs {name}' prints what its console said, "
            f"'mayfly machine delete {name}' removes it",
        )


def delete(machines: Path, name: str) -> None:
    """End a machine and remove everything of it."""
    place = open_place(machines, name)
    place.kill_qemu()
    place.remove()


def console_log(held: Held, templates: Path) -> str:
    """Give what is known of the machine's console: its template's boot, then its own."""
    save_console(held.process.monitor, held.place.path)
    texts = []
    for directory in (templates / held.record.template, held.place.path):
        with contextlib.suppress(FileNotFoundError):
            texts.append((directory / CONSOLE_LOG).read_text("utf-8", "replace"))
    return f"--- {held.record.id} from here on; above, its template ---\n".join(texts)


def attach_console(held: Held, stdin: int, stdout: int) -> None:
    """Connect a terminal, already raw, to the serial console until Ctrl-] or the machine's end."""
    _check_runs(held)
    monitor = held.process.monitor
    save_console(monitor, held.place.path)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        monitor.call("getfd", {"fdname": "console"}, fds=[theirs.fileno()])
        address = {"type": "fd", "data": {"str": "console"}}
        backend = {"type": "socket", "data": {"addr": address, "server": False}}
        monitor.call("chardev-change", {"id": "console", "backend": backend})
        monitor.call("cont")
        try:
            _pump(ours, stdin, stdout)
        finally:
            ring = {"type": "ringbuf", "data": {"size": 1 << 18}}
            with contextlib.suppress(Failed):
                monitor.call("stop")
                monitor.call("chardev-change", {"id": "console", "backend": ring})


def _pump(console: socket.socket, stdin: int, stdout: int) -> None:
    console.sendall(b"\r")
    while True:
        ready = select.select([console.fileno(), stdin], [], [])[0]
        if console.fileno() in ready:
            data = console.recv(65536)
            if not data:
                return
            os.write(stdout, data)
        if stdin in ready:
            typed = os.read(stdin, 1024)
            if not typed or LEAVE in typed:
                return
            console.sendall(typed)
