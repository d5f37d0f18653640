"""Requests that look at machines, or remove them: callers see their own, root sees all."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from mayfly.errors import Denied, Missing, Unavailable
from mayfly.host.caller import Caller, parts
from mayfly.host.loop import Wait
from mayfly.host.state import Hosted, Service
from mayfly.host.watching import end, occupied, save_console
from mayfly.host.wish import text_of
from mayfly.host.work import Step

Message = dict[str, Any]
READ_LIMIT_S = 30.0
"""How long who asked for a log may leave it unread."""
READ_TURN_S = 0.02
DELETED = "it was deleted"


def list_machines(service: Service, caller: Caller, _: Message) -> None:
    """Answer with the caller's machines; root sees those of all users, and the standbys."""
    found = [one for one in service.table if _sees(caller, one)]
    found.sort(key=lambda one: one.record.created_at)
    caller.items([as_item(one) for one in found])


def list_images(service: Service, caller: Caller, _: Message) -> None:
    """Answer with the names of the images that this host has, and which disk each is."""
    found = [{"name": one.name, "pin": one.pin} for one in service.catalogue.list()]
    caller.items(sorted(found, key=lambda item: item["name"]))


def show(service: Service, caller: Caller, message: Message) -> None:
    """Answer with everything that is known of one machine."""
    caller.ok({"machine": as_item(own(service, caller, message))})


def delete(service: Service, caller: Caller, message: Message) -> None:
    """End a machine."""
    hosted = own(service, caller, message)
    end(service, hosted, DELETED)
    caller.ok({"machine": hosted.id})


def logs(service: Service, caller: Caller, message: Message) -> Step[None]:
    """Answer with what a machine said, also when it is gone."""
    name = text_of(message, "machine", 40)
    hosted = service.table.find(name)
    if hosted is not None and not _sees(caller, hosted):
        hosted = None
    if hosted is not None and hosted.machine is not None and not hosted.busy:
        with occupied(service, hosted, "reading its console"):
            yield from save_console(service, hosted)
    sort = message.get("log")
    try:
        text = service.logs.read(name, caller.uid, **({"log": str(sort)} if sort else {}))
    except (Denied, Missing):
        # The same for another's machine and for none: which there are is nobody's business.
        raise _missing(name) from None
    yield from _say(caller, text)


def _say(caller: Caller, text: str) -> Step[None]:
    """Answer with a long text, as fast as it is read; others have their turn in between."""
    for part in parts(text):
        deadline = time.monotonic() + READ_LIMIT_S
        while not caller.is_reading():
            if time.monotonic() > deadline:
                raise Unavailable("the log was not read for long")
            yield Wait(seconds=READ_TURN_S)
        caller.tell({"type": "items", "items": [{"text": part}]})
        yield Wait(seconds=0)
    caller.ok()


def own(service: Service, caller: Caller, message: Message) -> Hosted:
    """Give the machine that a request names; raises ``Missing`` for one of somebody else."""
    name = text_of(message, "machine", 40)
    hosted = service.table.find(name)
    if hosted is None or not _sees(caller, hosted):
        raise _missing(name)
    return hosted


def _missing(name: str) -> Missing:
    # Also of another's, not "denied": whether there is one is nobody else's business.
    return Missing(f"no machine '{name}'", hint="'mayfly machine list' shows what there is")


def may_enter(service: Service, caller: Caller, hosted: Hosted) -> None:
    """Raise ``Denied`` unless the caller may be in the machine; root needs the site's leave."""
    if caller.is_site and hosted.record.lease:
        return
    if caller.uid != hosted.record.owner and not service.settings.admin_access:
        raise Denied(
            f"machine '{hosted.id}' belongs to uid {hosted.record.owner}",
            hint="'admin_access = true' in host.toml lets root enter machines of users",
        )


def _sees(caller: Caller, hosted: Hosted) -> bool:
    if caller.is_site:
        return bool(hosted.record.lease)
    return caller.is_root or (hosted.record.owner is not None and hosted.record.owner == caller.uid)


def as_item(hosted: Hosted) -> dict[str, object]:
    """Give a machine as clients see it."""
    record = hosted.record
    item = asdict(record)
    for secret in ("client_started", "started", "template"):
        del item[secret]
    item |= {"state": record.state.value, "image_pin": record.image_pin}
    return {**item, "busy": hosted.busy, "host": "service", "untrusted": hosted.distrust}
