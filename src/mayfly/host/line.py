"""Who may have a machine at all, and who waits for which turn."""

from __future__ import annotations

import itertools
import time

from mayfly.errors import Conflict, Denied, MayflyError, Quota, Unavailable
from mayfly.host.behalf import act_for, check_single
from mayfly.host.caller import Caller
from mayfly.host.claims import fulfil
from mayfly.host.guard import guarded
from mayfly.host.limits import (
    Need,
    Waiting,
    guest_memory_mib,
    line,
    never,
    next_grants,
    no_place,
    shape_for,
    why,
)
from mayfly.host.names import account_for
from mayfly.host.permits import permitted
from mayfly.host.request import Request
from mayfly.host.rights import Right
from mayfly.host.settings import Requests
from mayfly.host.state import Service
from mayfly.host.wish import Wish, parse_wish
from mayfly.host.work import Step
from mayfly.images.catalogue import check
from mayfly.images.catalogue.usage import mark_used
from mayfly.model import Account, Shape
from mayfly.units import MEMORY_LEAST_MIB

__all__ = ["advance", "claim", "leave"]

_numbers = itertools.count(1)
_turns = itertools.count(1)


def claim(service: Service, caller: Caller, message: dict[str, object]) -> Step[None]:
    """Take a request in; it is answered when its machine is there, or with the reason why not."""
    uid = caller.uid
    service.admitting[uid] += 1
    try:
        wish = parse_wish(message)
        wish = yield from act_for(service, caller, wish)
        request = yield from _admit(service, caller, wish)
        check_single(service, request.wish)
    except MayflyError as error:
        service.metrics.failed(error)
        caller.fail(error)
        return
    finally:
        service.admitting[uid] -= 1
    if caller.gone:
        return
    service.line[request.key] = request
    advance(service)
    if request.key not in service.line:
        return
    if not request.wish.wait:
        del service.line[request.key]
        caller.fail(Quota(f"no room for a machine now: {_why(service, request)}"))


def _admit(service: Service, caller: Caller, wish: Wish) -> Step[Request]:
    """Check everything that does not depend on the moment."""
    if caller.machine:
        raise Conflict(
            f"this connection has machine '{caller.machine}' already",
            hint="open another one for another machine",
        )
    if service.draining:
        raise Unavailable(
            "this host takes no new machines: it is being drained",
            hint="try another host; 'mayfly host undrain' (root) takes it back into service",
        )
    if service.admitting[caller.uid] > service.bounds().line_user:
        raise Quota("too many requests of yours are being looked at")
    account = yield from account_for(service, caller.peer)
    shape = _shape(service, caller, wish)
    right = _permit(service, caller, account, wish, shape)
    wish, may_root = permitted(service, caller, account, wish, shape)
    image = service.catalogue.find(wish.image)
    check(image)
    mark_used(image)
    request = Request(
        key=f"{next(_numbers)}",
        caller=caller,
        wish=wish,
        image=image,
        may_root=may_root,
        shape=shape,
        account=account,
        right=right,
        since=time.monotonic(),
    )
    need = service.need(shape, wish.disk_mib)
    reason = never(need, caller.uid, service.bounds(), template_mib=shape.memory_mib)
    if reason:
        raise Quota(f"this host never has room for such a machine: {reason}")
    full = no_place(_waiting(service), caller.uid, service.bounds())
    if full:
        raise Quota(f"too many requests wait: {full}")
    return request


def _shape(service: Service, caller: Caller, wish: Wish) -> Shape:
    """Give the size that a machine of ours has for what was asked for, or granted to the job."""
    if wish.shape is not None:
        return shape_for(wish.shape.cpus, wish.shape.memory_mib)
    right = service.rights.find(wish.job)
    if right is None or right.uid != caller.uid:
        # It will be refused, with the reason: by then any size will do.
        return Shape(cpus=1, memory_mib=MEMORY_LEAST_MIB)
    memory_mib = guest_memory_mib(right.memory_mib, service.engine.accelerator)
    return Shape(cpus=right.cpus, memory_mib=memory_mib)


def _permit(
    service: Service, caller: Caller, account: Account, wish: Wish, shape: Shape
) -> Right | None:
    """Give the right that the request stands on, None where none is needed; raises ``Denied``."""
    settings = service.settings
    if wish.job:
        return service.rights.check(
            caller.uid, wish.job, image=wish.image, shape=shape, held=service.held_by(wish.job)
        )
    if caller.is_root or settings.requests is Requests.ANYONE:
        return None
    if settings.requests is Requests.REGISTERED:
        raise Denied(
            "this host gives machines to batch jobs only",
            hint="submit a job; a job's machine is registered by the batch system's prolog",
        )
    named = account.name in settings.users
    if named or any(group.name in settings.groups for group in account.groups):
        return None
    raise Denied(f"user '{account.name}' may not have machines on this host")


def leave(service: Service, caller: Caller) -> None:
    """Take what a caller waits for out of the line."""
    for key, request in list(service.line.items()):
        if request.caller is caller:
            del service.line[key]


def advance(service: Service) -> None:
    """Begin with those whose turn it is, and tell the others where they stand."""
    if service.stopping:
        return
    waiting, held, bounds = _waiting(service), service.held(), service.bounds()
    now = time.monotonic()
    service.crowded = False
    if not waiting:
        service.served.clear()
    for key in next_grants(waiting, held, bounds, service.shared_mib(), now=now):
        request = service.line[key]
        if not service.can_begin(request.image.name, request.shape):
            # Those behind it who find a standby need not wait for that.
            service.crowded = True
            continue
        del service.line[key]
        service.served[request.caller.uid] = next(_turns)
        service.loop.spawn(guarded(fulfil(service, request), request.caller))
    if service.line and not service.crowded and service.templates.let_go(service.used_templates()):
        # Nobody waits for room that is held for nothing.
        service.changed()
        return
    _tell_places(service)


def _waiting(service: Service) -> list[Waiting]:
    return [
        Waiting(
            key=key,
            uid=request.caller.uid,
            need=service.need(request.shape, request.wish.disk_mib),
            since=request.since,
            template_mib=request.shape.memory_mib,
            served=service.served.get(request.caller.uid, 0),
        )
        for key, request in service.line.items()
    ]


def _tell_places(service: Service) -> None:
    places = line(_waiting(service), service.held(), service.bounds(), service.shared_mib())
    reasons: dict[tuple[int, Need], str] = {}
    for key, place in places.items():
        request = service.line[key]
        if service.told.get(key) != place:
            service.told[key] = place
            # Most of a thousand ask for the same.
            kind = (request.caller.uid, service.need(request.shape, request.wish.disk_mib))
            if kind not in reasons:
                reasons[kind] = _why(service, request)
            request.caller.tell(
                {"type": "line", "place": place, "ahead": place - 1, "why": reasons[kind]}
            )
    for key in set(service.told) - set(service.line):
        del service.told[key]


def _why(service: Service, request: Request) -> str:
    need = service.need(request.shape, request.wish.disk_mib)
    lacking = why(need, request.caller.uid, service.held(), service.bounds(), service.shared_mib())
    return lacking or "others are being started"
