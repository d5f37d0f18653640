"""What the site's policy makes of a request to the service: who asks is what the system says."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from mayfly.host.caller import Caller
from mayfly.host.names import account_for
from mayfly.host.permission import person_of
from mayfly.host.state import Hosted, Service
from mayfly.host.trust import contents_of
from mayfly.host.wish import Wish
from mayfly.host.work import Step
from mayfly.model import Account, NetworkMode, Shape
from mayfly.policy.model import Ask
from mayfly.policy.model import Wish as PolicyWish


def permitted(
    service: Service, caller: Caller, account: Account, wish: Wish, shape: Shape
) -> tuple[Wish, bool]:
    """Give the wish as it is allowed, and whether its owner may be root in the machine.

    Raises ``Denied`` or ``Untrusted``, naming the rule and the line.
    """
    asked = PolicyWish(
        ask=Ask.IMAGE,
        image=wish.image,
        network=wish.network,
        network_asked=wish.network_asked,
        root=wish.root,
        shares=bool(wish.shares),
        cpus=shape.cpus,
        memory_mib=shape.memory_mib,
        time_s=wish.life_s or 0.0,
        machines=_machines_of(service, caller.uid),
    )
    now = datetime.now(UTC)
    right = service.rights.find(wish.job)
    queue = right.queue if right is not None and right.uid == caller.uid else ""
    person = replace(person_of(account), queue=queue)
    permit = service.gate.permit(person, asked, service.catalogue, now)
    for note in permit.notes:
        caller.tell({"type": "note", "text": note[:4000]})
    return (
        replace(
            wish,
            image=permit.image,
            network=permit.network,
            allow=wish.allow if permit.network is NetworkMode.RESTRICTED else (),
            life_s=wish.life_s or permit.limits.time_s or None,
        ),
        permit.may_root,
    )


def _machines_of(service: Service, uid: int) -> int:
    """Count what a user has, or waits for."""
    there = sum(one.record.owner == uid and not one.is_saved for one in service.table)
    return there + sum(request.caller.uid == uid for request in service.line.values())


def check_resumed(service: Service, hosted: Hosted, caller: Caller) -> Step[None]:
    """Refuse to bring a machine back whose image, or whose owner, may not be used any more."""
    record, now = hosted.record, datetime.now(UTC)
    contents = contents_of(hosted)
    if not contents:
        service.gate.check(service.catalogue.find(record.image), now)
    elif error := service.gate.distrust_of(record.image, contents, now):
        raise error
    if caller.uid != record.owner or not service.gate.has_policy:
        return
    account = yield from account_for(service, caller.peer)
    asked = PolicyWish(
        ask=Ask.IMAGE,
        image=record.image,
        network=NetworkMode(record.network),
        network_asked=True,
        cpus=record.cpus,
        memory_mib=record.memory_mib,
        machines=_machines_of(service, caller.uid),
    )
    service.gate.permit(person_of(account), asked, service.catalogue, now)
