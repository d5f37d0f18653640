"""A machine becomes an image: it is stripped, stopped, and its disk's files are handed out."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from mayfly.engine.strip import LIMIT_S, REQUEST, check_stripped, layers_of
from mayfly.engine.template import open_file
from mayfly.errors import Conflict
from mayfly.host.caller import Caller
from mayfly.host.machines import may_enter
from mayfly.host.operations import ready
from mayfly.host.qemu import answered, replied
from mayfly.host.state import Service
from mayfly.host.watching import occupied
from mayfly.host.work import Step
from mayfly.model import State

Message = dict[str, Any]


def strip(service: Service, caller: Caller, message: Message) -> Step[None]:
    """Give the files that a machine's disk consists of, when it has no identity any more.

    They are its owner's to read: what is in them, root in the machine has seen. The machine stays,
    paused; its owner deletes it when the image is made.
    """
    hosted = yield from ready(service, caller, message, State.RUNNING)
    may_enter(service, caller, hosted)
    if hosted.caller is not None or hosted.client >= 0 or hosted.visitor is not None:
        raise Conflict(
            f"somebody is connected to machine '{hosted.id}'",
            hint="machines that stay ('mayfly run --detach') can become images when left",
        )
    layers = layers_of(hosted.place.path, service.engine.paths.templates / hosted.record.template)
    with occupied(service, hosted, "becoming an image") as machine:
        number = machine.control.send(dict(REQUEST))
        check_stripped(hosted.id, (yield from answered(machine.control, number, "strip", LIMIT_S)))
        machine.process.monitor.send("stop")
        yield from replied(machine.process.monitor, "stop")
        hosted.write(replace(hosted.record, state=State.PAUSED))
    service.logs.event(hosted.id, "stripped, to become an image", now=time.time())
    with ExitStack() as stack:
        fds = []
        for path in layers:
            fds.append(open_file(path))
            stack.callback(os.close, fds[-1])
        image = hosted.record.image_pin
        caller.ok({"image": image, "layers": len(fds)}, fds)
