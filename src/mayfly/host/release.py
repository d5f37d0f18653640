"""A machine is given back when its job has ended: it ends too, or is kept to be looked at."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from mayfly.errors import Conflict, MayflyError, Missing
from mayfly.host import joining, usage
from mayfly.host.caller import Caller
from mayfly.host.saving import put_away
from mayfly.host.state import Hosted, Service
from mayfly.host.watching import end, forget_client
from mayfly.host.work import Step
from mayfly.model import State
from mayfly.units import show_duration

Message = dict[str, Any]


def release(service: Service, caller: Caller, message: Message) -> Step[None]:
    """Take a machine back, with how its job ended."""
    hosted = _held(service, caller, message)
    caller.machine = ""
    outcome = message.get("outcome")
    if hosted.visitor is caller:
        hosted.visitor = None
        caller.ok()
        return
    if caller in hosted.sessions:
        joining.leave(service, hosted, caller)
    told = outcome if isinstance(outcome, dict) else {}
    service.logs.status(hosted.id, told)
    text = f"the job ended: {told.get('code')} {told.get('reason') or ''}"
    service.logs.event(hosted.id, text, now=time.time())
    if _is_shared(service, hosted):
        yield from _release_shared(service, hosted, caller, message)
        return
    hosted.caller = None
    if message.get("keep") is True:
        yield from _keep(service, hosted, str(told.get("reason") or "its job failed"))
        caller.ok({"text": _kept_words(service, hosted)})
        return
    end(service, hosted, "its job ended")
    caller.ok()


def _kept_words(service: Service, hosted: Hosted) -> str:
    kept = show_duration(service.settings.kept.for_s)
    return (
        f"failed: machine {hosted.id} is kept for {kept}; 'mayfly machine debug {hosted.id}' "
        f"enters it, 'mayfly machine delete {hosted.id}' removes it"
    )


def _is_shared(service: Service, hosted: Hosted) -> bool:
    right = service.rights.find(hosted.record.job)
    return right is not None and right.shared


def _release_shared(
    service: Service, hosted: Hosted, caller: Caller, message: Message
) -> Step[None]:
    """One process of a job has ended: the machine stays for the others, or is kept."""
    if message.get("keep") is not True:
        caller.ok()
        return
    if hosted.sessions:
        raise Conflict("others of the job are still in its machine: it cannot be kept")
    holder, hosted.caller = hosted.caller, None
    try:
        told = message.get("outcome")
        reason = told.get("reason") if isinstance(told, dict) else ""
        yield from _keep(service, hosted, str(reason or "its job failed"))
    finally:
        if holder is not None:
            holder.machine = ""
    caller.ok({"text": _kept_words(service, hosted)})


def _keep(service: Service, hosted: Hosted, reason: str) -> Step[None]:
    """Put the machine by as it is; when that cannot be, it ends."""
    if hosted.busy:
        what = hosted.busy
        end(service, hosted, f"it could not be kept: it was busy ({what})")
        raise Conflict(f"machine '{hosted.id}' cannot be kept: it is busy ({what})")
    usage.note_end(service, hosted, reason)
    # From here on it does not end with the process whose job ran in it.
    forget_client(service, hosted)
    hosted.write(replace(hosted.record, outlive=True, client=0, client_started=0))
    try:
        yield from put_away(service, hosted, State.KEPT, reason)
    except MayflyError as error:
        end(service, hosted, f"it could not be kept: {error.message}")
        raise


def _held(service: Service, caller: Caller, message: Message) -> Hosted:
    """Give the machine that a caller gives back, also when its connection was to another service.

    That one may have been restarted since: the process that has the machine is then known by
    what is written down.
    """
    hosted = service.table.find(caller.machine)
    known = () if hosted is None else (hosted.caller, hosted.visitor, *hosted.sessions)
    if hosted is not None and caller in known:
        return hosted
    hosted = service.table.find(str(message.get("machine")))
    if hosted is not None and hosted.caller is None:
        record, peer = hosted.record, caller.peer
        if (record.client, record.client_started) == (peer.pid, peer.started):
            return hosted
    raise Missing("this connection has no machine")
