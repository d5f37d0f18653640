"""After a start: what an earlier service has left is taken over, or removed."""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from dataclasses import replace
from enum import Enum
from pathlib import Path

from mayfly.engine.linux import start_time
from mayfly.engine.reattach import connect_process, reconnect
from mayfly.engine.records import Place, Record, is_alive, kill_qemu, left_places, read_record
from mayfly.engine.saved import read_saved
from mayfly.errors import Failed, MayflyError
from mayfly.host import joining
from mayfly.host.claims import bind
from mayfly.host.loop import Task
from mayfly.host.qemu import replied
from mayfly.host.state import SAVED, Hosted, Service
from mayfly.host.watching import end, watch
from mayfly.host.work import Channel, Step, work
from mayfly.model import Shape, State

PATIENCE_S = 0.3
"""For machines that answer; the others are waited for by a child each."""
LONG_S = 7 * 86_400.0

log = logging.getLogger("mayfly.host")


class Fate(Enum):
    """What becomes of a machine that an earlier service had."""

    ADOPT = "adopt"
    """It runs, and whoever has it is there."""
    STAY = "stay"
    """It lies on disk, and its time is not over."""
    REMOVE = "remove"


def fate_of(record: Record, *, alive: bool, client_alive: bool, now: float) -> Fate:
    """Decide what becomes of a machine; pure.

    A standby is removed: it is made again in a second, and nothing is known of how it is.
    """
    if record.state in (State.SUSPENDED, State.KEPT):
        expired = record.expires_at is not None and now >= record.expires_at
        return Fate.REMOVE if expired else Fate.STAY
    if record.state not in (State.RUNNING, State.PAUSED) or not alive:
        return Fate.REMOVE
    return Fate.ADOPT if record.outlive or client_alive else Fate.REMOVE


def adopt_all(service: Service) -> None:
    """Go through what is there; each machine is in the table, or gone, afterwards."""
    for place in left_places(service.engine.paths.machines):
        record = sound_record(place.path)
        if record is None:
            log.warning("%s has no record that can be read: removed", place.path)
            place.remove()
            continue
        record = _back_on_disk(place, record)
        client_alive = start_time(record.client) == record.client_started and record.client > 0
        fate = fate_of(record, alive=is_alive(record), client_alive=client_alive, now=time.time())
        shape = Shape(cpus=record.cpus, memory_mib=record.memory_mib)
        hosted = Hosted(record=record, place=place, need=service.need(shape, record.disk_mib))
        if fate is Fate.ADOPT:
            service.loop.spawn(_adopt(service, hosted))
        elif fate is Fate.STAY:
            # It was saved, and its QEMU not ended yet.
            kill_qemu(record)
            service.table.add(hosted)
        else:
            _remove(hosted)


def _back_on_disk(place: Place, record: Record) -> Record:
    """Give the record of a machine that was just being saved or brought back as its service died.

    What was saved stays until it runs: it still does.
    """
    if record.owner is None or not _lies_there(record):
        return record
    try:
        read_saved(place.path / SAVED)
    except MayflyError:
        return record
    kill_qemu(record)
    saved = replace(record, state=State.SUSPENDED, pid=0, started=0)
    place.write(saved)
    log.info("machine %s is suspended, as it was", record.id)
    return saved


def _lies_there(record: Record) -> bool:
    """Tell whether what was saved of a machine, if anything was, is the latest of it."""
    if record.state is State.RUNNING:
        return not is_alive(record)
    # One that is paused has not run since; without a network and renewal it must not either.
    return record.state in (State.WANTED, State.STARTING, State.PAUSED)


def sound_record(path: Path) -> Record | None:
    """Give a machine's record; None when it cannot be the one that was written there."""
    try:
        record = read_record(path)
    except Failed:
        return None
    sizes = (record.cpus, record.memory_mib, record.disk_mib)
    return record if record.id == path.name and min(sizes) >= 0 else None


def _adopt(service: Service, hosted: Hosted) -> Task:
    """Take over a machine; one that a batch system has frozen as soon as it is thawed."""
    service.table.add(hosted)
    hosted.busy = "its QEMU does not answer: stopped?"
    try:
        bind(service, hosted)
        while True:
            try:
                hosted.machine = reconnect(hosted.record, hosted.place, patience_s=PATIENCE_S)
                break
            except MayflyError as error:
                if not is_alive(hosted.record):
                    raise
                log.warning("machine %s is waited for: %s", hosted.id, error)
            yield from _answer_of(hosted)
        yield from _set_right(hosted)
    except MayflyError as error:
        hosted.doomed = hosted.doomed or f"it cannot be taken over: {error.message}"
    hosted.busy = ""
    watch(service, hosted)
    if hosted.doomed:
        end(service, hosted, hosted.doomed)
        return
    log.info("machine %s of uid %s goes on", hosted.id, hosted.record.owner)
    joining.advance(service, hosted.record.job)


def _set_right(hosted: Hosted) -> Step[None]:
    """Have the machine run, or stand still, as is written down: something may have been under way.

    Whoever was just saving it, or taking a snapshot, has stopped it, and does not let it go on.
    """
    machine = hosted.machine
    assert machine is not None
    monitor = machine.process.monitor
    monitor.send("query-status")
    status = (yield from replied(monitor, "query-status")).get("status")
    wanted = {"paused": State.RUNNING, "running": State.PAUSED}.get(str(status))
    if hosted.record.state is wanted:
        command = "cont" if wanted is State.RUNNING else "stop"
        monitor.send(command)
        yield from replied(monitor, command)
    # It runs: what was saved of it is of an earlier time.
    shutil.rmtree(hosted.place.path / SAVED, ignore_errors=True)


def _answer_of(hosted: Hosted) -> Step[None]:
    """Wait, however long it takes, until QEMU answers; raises when it ends instead."""

    def body(channel: Channel) -> None:
        with contextlib.ExitStack() as undo:
            place, record = hosted.place, hosted.record
            process = connect_process(record, place, undo, patience_s=LONG_S)
            process.monitor.negotiate(timeout_s=LONG_S)
        channel.done({})

    yield from work(body, name=f"the wait for machine {hosted.id}", keep=[hosted.place.fileno()])


def _remove(hosted: Hosted) -> None:
    hosted.place.kill_qemu()
    hosted.place.remove()
    log.info("machine %s, left by an earlier service, removed", hosted.id)
