"""Take over a running machine: from the process that made it, or after that process died.

What one process has of a machine, besides its record, are four descriptors: they can be sent to
another one, which goes on where the first stopped. A process that died has left the sockets in
the machine's directory, where QEMU listens again.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence

from mayfly.engine.control import Control
from mayfly.engine.machine import Machine
from mayfly.engine.monitor import Monitor
from mayfly.engine.process import Process, connect_socket
from mayfly.engine.records import Place, Record, is_alive
from mayfly.engine.watch import Signs
from mayfly.errors import Failed


def handles(machine: Machine) -> list[int]:
    """Give the descriptors that make up the hold on a machine, in the order of ``rebuild``.

    They may be sent away from here on: nothing is half read. Raises ``Failed`` or ``Quota`` when
    the machine has ended meanwhile, for whoever gets them would not be told.
    """
    process = machine.process
    process.monitor.finish_line()
    Signs(process).check()
    return [process.handle, process.monitor.fileno(), process.output, machine.control.fileno()]


def rebuild(record: Record, place: Place, fds: Sequence[int]) -> Machine:
    """Make a machine again of what ``handles`` gave in another process, without asking QEMU.

    The descriptors are the machine's from here on. No request may be underway in either process.
    """
    handle, qmp, output, control = fds
    process = Process(
        pid=record.pid,
        handle=handle,
        monitor=Monitor(socket.socket(fileno=qmp)),
        place=place.path,
        output=output,
    )
    port = socket.socket(fileno=control)
    # The agent goes on with the same conversation: a new one would cost a stopped machine time
    # when it is claimed.
    return Machine(process, _control(process, port, begun=True), record, place)


def reconnect(record: Record, place: Place, *, patience_s: float) -> Machine:
    """Make a machine again from its sockets, when nobody is connected to them any more.

    The agent is told that another conversation begins, but not waited for: the machine may be
    stopped. Raises ``Failed`` when QEMU ended, ``Unavailable`` when it is silent so long.
    """
    with contextlib.ExitStack() as undo:
        process = connect_process(record, place, undo, patience_s=patience_s)
        process.monitor.negotiate(timeout_s=patience_s)
        port = connect_socket(place.path, "control", patience_s=patience_s)
        undo.callback(port.close)
        control = _control(process, port, begun=False)
        control.begin()
        undo.pop_all()
    return Machine(process, control, record, place)


def connect_process(
    record: Record, place: Place, undo: contextlib.ExitStack, *, patience_s: float
) -> Process:
    """Connect to the QEMU of a record; ``undo`` closes what was opened. It is not greeted yet."""
    gone = Failed(
        f"machine '{record.id}' is not running any more",
        hint=f"'mayfly machine delete {record.id}' removes what is left of it",
    )
    try:
        handle = os.pidfd_open(record.pid)
    except OSError:
        raise gone from None
    undo.callback(os.close, handle)
    # Only now: a pid that was another's before the handle was had would pass for it.
    if not is_alive(record):
        raise gone
    monitor = undo.enter_context(Monitor(connect_socket(place.path, "qmp", patience_s=patience_s)))
    # Its real output went to whoever started it.
    output = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    undo.callback(os.close, output)
    return Process(pid=record.pid, handle=handle, monitor=monitor, place=place.path, output=output)


def _control(process: Process, port: socket.socket, *, begun: bool) -> Control:
    return Control(port, process.handle, tick=Signs(process).check, begun=begun)
