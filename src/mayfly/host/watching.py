"""Sees when a machine or the process that has it ends, and makes an end of what is left."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mayfly.command import run
from mayfly.engine.machine import Machine
from mayfly.engine.records import Record, is_alive
from mayfly.engine.watch import CONSOLE_LOG, Signs
from mayfly.errors import MayflyError
from mayfly.host import cgroups, usage
from mayfly.host.logs import BOOT_LOG
from mayfly.host.loop import Task, Wait
from mayfly.host.qemu import LAST_WORDS_S, last_console
from mayfly.host.state import Hosted, Service
from mayfly.host.work import Channel, Step, work
from mayfly.model import State, Who

KILL_LIMIT_S = 10.0
COLLECT_LIMIT_S = 60.0

log = logging.getLogger("mayfly.host")


def watch(service: Service, hosted: Hosted) -> None:
    """Look at what QEMU says, and for its end, from here on."""
    machine = hosted.machine
    if machine is None:
        return
    # A guest, or a QEMU, that does not read must not keep us when we send.
    for fd in (machine.process.monitor.fileno(), machine.control.fileno()):
        os.set_blocking(fd, False)
    hosted.signs = hosted.signs or Signs(machine.process, patience_s=LAST_WORDS_S)
    service.loop.watch(machine.process.monitor.fileno(), lambda: _look(service, hosted))
    service.loop.watch(machine.process.handle, lambda: end(service, hosted, _why(service, hosted)))
    # What it said while somebody else talked with it has been read, but not looked at.
    service.loop.later(0, lambda: _look(service, hosted))


def unwatch(service: Service, hosted: Hosted) -> None:
    """Look no longer: somebody else talks with it."""
    if hosted.machine is not None:
        service.loop.forget(hosted.machine.process.monitor.fileno())
        service.loop.forget(hosted.machine.process.handle)


@contextlib.contextmanager
def occupied(service: Service, hosted: Hosted, what: str) -> Iterator[Machine]:
    """Have a machine to oneself; who wants its end meanwhile gets it afterwards."""
    machine = hosted.machine
    assert machine is not None
    hosted.busy = what
    unwatch(service, hosted)
    try:
        yield machine
    finally:
        hosted.busy = ""
        if hosted.machine is not None:
            watch(service, hosted)
        if hosted.doomed:
            end(service, hosted, hosted.doomed)


def watch_client(service: Service, hosted: Hosted, handle: int) -> None:
    """End the machine when this process ends; takes the pidfd over."""
    hosted.client = handle
    service.loop.watch(handle, lambda: end(service, hosted, "the process that had it ended"))


def forget_client(service: Service, hosted: Hosted) -> None:
    """The machine no longer belongs to a process."""
    if hosted.client >= 0:
        service.loop.forget(hosted.client)
        os.close(hosted.client)
        hosted.client = -1


def _look(service: Service, hosted: Hosted) -> None:
    signs = hosted.signs
    if signs is None or hosted.busy or hosted.ended:
        return
    try:
        signs.look()
    except MayflyError:
        # Its descriptor would stay readable for ever; the end itself is seen by the pidfd.
        end(service, hosted, signs.reason or _why(service, hosted))
        return
    if signs.reason:
        end(service, hosted, signs.reason)
    elif (patience_s := signs.patience_s()) is not None:
        service.loop.later(patience_s + 0.01, lambda: _look(service, hosted))


def _why(service: Service, hosted: Hosted) -> str:
    """Say why a QEMU has ended by itself."""
    right = service.rights.find(hosted.record.job)
    if right is None or not right.shared or not right.cgroup:
        return "its QEMU ended"
    hosted.used_up = cgroups.oom_kills(right.cgroup) > hosted.oom_kills
    granted = f"the {right.memory_mib} MiB of memory that the job was granted were used up"
    return f"the kernel ended its QEMU: {granted}" if hosted.used_up else "its QEMU ended"


def end(service: Service, hosted: Hosted, reason: str) -> None:
    """End a machine, whatever it is doing, and remove everything of it."""
    if hosted.ended:
        return
    hosted.doomed = hosted.doomed or reason
    if hosted.busy:
        # What is being done with it then fails, and we are called again.
        _kill(hosted)
        return
    hosted.busy = "ending"
    unwatch(service, hosted)
    service.loop.spawn(_ending(service, hosted))


def _ending(service: Service, hosted: Hosted) -> Task:
    _tell(hosted)
    forget_client(service, hosted)
    with contextlib.suppress(MayflyError):
        hosted.write(replace(hosted.record, state=State.STOPPING, reason=hosted.doomed[:300]))
    usage.note_end(service, hosted, hosted.doomed)
    machine = hosted.machine
    if machine is not None:
        if not hosted.is_standby:
            yield from save_console(service, hosted)
        yield from end_process(hosted)
    _keep_logs(service, hosted)
    hosted.place.remove()
    hosted.ended = True
    service.table.remove(hosted)
    log.info("machine %s ended: %s", hosted.id, hosted.doomed)
    service.changed()


def end_qemu(service: Service, hosted: Hosted) -> Step[None]:
    """End the QEMU of a machine that stays without one."""
    unwatch(service, hosted)
    hosted.busy = "ending its QEMU"
    yield from save_console(service, hosted)
    yield from end_process(hosted)
    hosted.busy = ""
    if hosted.doomed:
        end(service, hosted, hosted.doomed)


def end_process(hosted: Hosted) -> Step[None]:
    """End the QEMU of a machine, if it has one, and let go of it."""
    machine = hosted.machine
    if machine is None:
        return
    _kill(hosted)
    yield Wait(fds=(machine.process.handle,), seconds=KILL_LIMIT_S)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(machine.process.pid, os.WNOHANG)
    let_go(machine)
    hosted.machine = None


def let_go(machine: Machine) -> None:
    """Close our ends of a machine."""
    machine.control.close()
    machine.process.let_go()


def _tell(hosted: Hosted) -> None:
    if hosted.visitor is not None:
        # Nothing depends on that connection any more.
        hosted.visitor.machine = ""
        hosted.visitor = None
    host_full = hosted.signs is not None and hosted.signs.host_full
    who = Who.SITE if host_full else Who.JOB if hosted.used_up else Who.MAYFLY
    those = [*hosted.sessions, *([] if hosted.caller is None else [hosted.caller])]
    for caller in those:
        caller.tell({"type": "ended", "reason": hosted.doomed[:2000], "who": who.value})
        caller.machine = ""
    hosted.sessions.clear()
    hosted.caller = None


def _kill(hosted: Hosted) -> None:
    with contextlib.suppress(OSError):
        if hosted.machine is not None:
            signal.pidfd_send_signal(hosted.machine.process.handle, signal.SIGKILL)
        elif is_alive(hosted.record):
            _kill_written(hosted.record)


def _kill_written(record: Record) -> None:
    """End a QEMU that is known from its record only: one of which we wait to be answered."""
    handle = os.pidfd_open(record.pid)
    try:
        # Only now the pid cannot become another's.
        if is_alive(record):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    finally:
        os.close(handle)


def save_console(service: Service, hosted: Hosted) -> Step[None]:
    """Put what the console said since the last time where it is found later."""
    if hosted.machine is not None:
        text = yield from last_console(hosted.machine.process)
        if text:
            service.logs.console(hosted.id, text.encode("utf-8", "replace"))


def _keep_logs(service: Service, hosted: Hosted) -> None:
    """Let the machine's logs be found after its end, by its owner and by the site's script."""
    if hosted.record.owner is None:
        return
    service.logs.event(hosted.id, f"ended: {hosted.doomed}", now=time.time())
    with contextlib.suppress(OSError):
        boot = service.engine.paths.templates / hosted.record.template / CONSOLE_LOG
        service.logs.append(hosted.id, BOOT_LOG, boot.read_bytes())
    service.logs.finish(hosted.record, hosted.place.path)
    if service.settings.collect is not None:
        service.loop.spawn(_collect(service.settings.collect, service.logs.directory(hosted.id)))


def _collect(script: Path, directory: Path) -> Task:
    def body(channel: Channel) -> None:
        run([str(script), str(directory)], timeout_s=COLLECT_LIMIT_S)
        channel.done({})

    try:
        yield from work(body, name=f"{script}", limit_s=2 * COLLECT_LIMIT_S)
    except MayflyError as error:
        log.warning("the site's script failed: %s", error)
