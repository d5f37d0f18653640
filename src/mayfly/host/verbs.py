"""What callers may ask for, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mayfly.errors import Conflict, Failed
from mayfly.host import administration, line, machines, operations, points, saving, stripping
from mayfly.host.caller import Caller
from mayfly.host.guard import guarded
from mayfly.host.loop import Task
from mayfly.host.release import release
from mayfly.host.state import Service
from mayfly.host.work import Step

Message = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """One request."""

    run: Callable[[Service, Caller, Message], Task]
    root_only: bool = False


def _slow(step: Callable[[Service, Caller, Message], Step[None]]) -> Verb:
    def run(service: Service, caller: Caller, message: Message) -> Task:
        yield from guarded(step(service, caller, message), caller)

    return Verb(run=run)


def _with(step: Callable[[Service, Caller, Message], Step[None]]) -> Verb:
    """Make a verb of what is done with a machine, which may be ended by others meanwhile."""

    def with_reason(service: Service, caller: Caller, message: Message) -> Step[None]:
        name = message.get("machine")
        hosted = service.table.find(name) if isinstance(name, str) else None
        try:
            yield from step(service, caller, message)
        except Failed as error:
            if hosted is None or not hosted.doomed or error.message in hosted.doomed:
                raise
            # Not what QEMU's end looked like from here.
            kind = Conflict if hosted.doomed == machines.DELETED else Failed
            raise kind(f"machine '{hosted.id}' was ended meanwhile: {hosted.doomed}") from error

    return _slow(with_reason)


def _quick(answer: Callable[[Service, Caller, Message], None], *, root_only: bool = False) -> Verb:
    def step(service: Service, caller: Caller, message: Message) -> Step[None]:
        answer(service, caller, message)
        yield from ()

    return Verb(run=_slow(step).run, root_only=root_only)


VERBS: dict[str, Verb] = {
    "claim": _slow(line.claim),
    "list": _quick(machines.list_machines),
    "images": _quick(machines.list_images),
    "show": _quick(machines.show),
    "logs": _with(machines.logs),
    "delete": _quick(machines.delete),
    "release": _slow(release),
    "enter": _with(operations.enter),
    "resume": _with(saving.resume),
    "suspend": _with(saving.suspend),
    "snapshot": _with(points.snapshot),
    "snapshots": _with(points.snapshots),
    "revert": _with(points.revert),
    "strip": _with(stripping.strip),
    "pause": _with(operations.pause),
    "status": _quick(administration.status),
    "metrics": _quick(administration.metrics),
    "check": _quick(administration.check, root_only=True),
    "drain": _quick(administration.drain, root_only=True),
    "undrain": _quick(administration.undrain, root_only=True),
    "warm": _quick(administration.warm, root_only=True),
    "cool": _quick(administration.cool, root_only=True),
    "register": _quick(administration.register, root_only=True),
    "unregister": _quick(administration.unregister, root_only=True),
}
