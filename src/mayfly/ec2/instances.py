"""Instances that exist: listing them, their state, their console, and the verbs."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence

from mayfly.ec2.answer import Answer, Value
from mayfly.ec2.call import Call, tag_set, tags_of
from mayfly.ec2.fault import Fault, fault_of
from mayfly.ec2.filters import holds, read_filters, tag_facts
from mayfly.ec2.paging import cut, read_page
from mayfly.ec2.values import ALLOWED, PHASE_CODES, Instance, Phase, Verb
from mayfly.errors import Conflict, Missing

CONSOLE_BYTES = 65536

_ID = re.compile(r"i-[0-9a-f]{8}([0-9a-f]{9})?")
_STATUS_FILTERS = frozenset(
    {
        "availability-zone",
        "instance-state-code",
        "instance-state-name",
        "instance-status.status",
        "system-status.status",
    }
)
_FILTERS = frozenset(
    {
        "architecture",
        "availability-zone",
        "client-token",
        "dns-name",
        "image-id",
        "instance-id",
        "instance-state-code",
        "instance-state-name",
        "instance-type",
        "ip-address",
        "key-name",
        "launch-index",
        "launch-time",
        "owner-id",
        "private-dns-name",
        "private-ip-address",
        "reservation-id",
        "tag-key",
        "tag-value",
    }
)

Tags = Mapping[str, Sequence[tuple[str, str]]]


def describe_instances(call: Call) -> Answer:
    """List instances, those of one order together."""
    page = read_page(call.query)
    filters = read_filters(call.query, _FILTERS)
    ids = call.query.texts("InstanceId")
    if ids and page.asked:
        message = "The parameter instancesSet cannot be used with the parameter maxResults"
        raise Fault("InvalidParameterCombination", message)
    call.ready()
    tags = tags_of(call)
    wanted = find_instances(call, ids) if ids else call.backend.machines.instances(call.owner)
    found = [each for each in wanted if holds(filters, _facts(call, each, tags.get(each.id, ())))]
    shown, token = cut(found, _key, page)
    orders: dict[str, list[Instance]] = {}
    for each in shown:
        orders.setdefault(each.reservation, []).append(each)
    sets: list[Value] = [reservation(call, those, tags) for those in orders.values()]
    return {"reservationSet": sets, "nextToken": token}


def describe_instance_status(call: Call) -> Answer:
    """Say how running instances are; others only on demand."""
    page = read_page(call.query)
    filters = read_filters(call.query, _STATUS_FILTERS)
    ids = call.query.texts("InstanceId")
    every = call.query.flag("IncludeAllInstances")
    call.ready()
    wanted = find_instances(call, ids) if ids else call.backend.machines.instances(call.owner)
    found = [
        each
        for each in wanted
        if (every or each.phase is Phase.RUNNING) and holds(filters, _status_facts(call, each))
    ]
    shown, token = cut(found, _key, page)
    return {"instanceStatusSet": [_status(call, each) for each in shown], "nextToken": token}


def get_console_output(call: Call) -> Answer:
    """Give the end of what an instance wrote to its console."""
    (instance,) = find_instances(call, (call.query.require("InstanceId"),))
    call.query.flag("Latest")
    call.ready()
    console = call.backend.machines.console(call.owner, instance.id)
    return {
        "instanceId": instance.id,
        "timestamp": console.at,
        "output": base64.b64encode(console.text[-CONSOLE_BYTES:]).decode(),
    }


def start_instances(call: Call) -> Answer:
    """Start instances that are stopped."""
    call.query.text("AdditionalInfo")
    return _change(call, Verb.START)


def stop_instances(call: Call) -> Answer:
    """Stop instances; their disks stay."""
    call.query.flag("Force")
    if call.query.flag("Hibernate"):
        raise Fault("UnsupportedOperation", "Hibernate is not offered through this API")
    return _change(call, Verb.STOP)


def terminate_instances(call: Call) -> Answer:
    """Delete instances and all that is in them."""
    call.query.flag("Force")
    return _change(call, Verb.TERMINATE)


def reboot_instances(call: Call) -> Answer:
    """Start the systems in instances anew."""
    _change(call, Verb.REBOOT)
    return {"return": True}


def find_instances(call: Call, ids: Sequence[str]) -> tuple[Instance, ...]:
    """Give instances of this user, each once, in the order of their ids here.

    :raises Fault: an id that is none, one that this user does not have
    """
    for each in ids:
        if not _ID.fullmatch(each):
            raise Fault("InvalidInstanceID.Malformed", f'Invalid id: "{each}"')
    here = {each.id: each for each in call.backend.machines.instances(call.owner)} if ids else {}
    missing = [each for each in dict.fromkeys(ids) if each not in here]
    if missing:
        raise _not_found(missing)
    return tuple(here[each] for each in dict.fromkeys(ids))


def reservation(call: Call, those: Sequence[Instance], tags: Tags) -> Answer:
    """Give the instances of one order as an answer has them."""
    items: list[Value] = [_instance(call, each, tags.get(each.id, ())) for each in those]
    return {
        "reservationId": those[0].reservation,
        "ownerId": call.owner,
        "groupSet": [],
        "instancesSet": items,
    }


def _change(call: Call, verb: Verb) -> Answer:
    ids = call.query.texts("InstanceId")
    if not ids:
        raise Fault("MissingParameter", "The request must contain the parameter InstanceId")
    for each in find_instances(call, ids):
        if each.phase not in ALLOWED[verb]:
            message = f"The instance '{each.id}' is {each.phase}: it cannot {verb} from there"
            raise Fault("IncorrectInstanceState", message)
    call.ready()
    try:
        changes = call.backend.machines.change(call.owner, verb, tuple(dict.fromkeys(ids)))
    except Missing:
        raise _not_found(ids) from None
    except Conflict as error:
        raise fault_of(error) from error
    return {
        "instancesSet": [
            {
                "instanceId": change.id,
                "currentState": _state(change.after),
                "previousState": _state(change.before),
            }
            for change in changes
        ]
    }


def _not_found(ids: Sequence[str]) -> Fault:
    many = len(ids) > 1
    subject = f"The instance ID{'s' if many else ''} '{', '.join(ids[:20])}'"
    verb = "do" if many else "does"
    return Fault("InvalidInstanceID.NotFound", f"{subject} {verb} not exist")


def _key(each: Instance) -> str:
    return f"{each.launched_at:%Y%m%d%H%M%S%f} {each.reservation} {each.index:06} {each.id}"


def _state(phase: Phase) -> Answer:
    return {"code": PHASE_CODES[phase], "name": str(phase)}


def _instance(call: Call, each: Instance, tags: Sequence[tuple[str, str]]) -> Answer:
    address = each.address or None
    reason: Answer = {"code": f"Mayfly.{each.phase}", "message": each.reason}
    return {
        "instanceId": each.id,
        "imageId": each.image,
        "instanceState": _state(each.phase),
        "privateDnsName": each.name,
        "dnsName": each.name,
        "reason": each.reason,
        "keyName": each.key_name or None,
        "amiLaunchIndex": each.index,
        "productCodes": [],
        "instanceType": each.type,
        "launchTime": each.launched_at,
        "placement": {
            "availabilityZone": call.backend.region.zone,
            "groupName": "",
            "tenancy": "default",
        },
        "monitoring": {"state": "disabled"},
        "privateIpAddress": address,
        "ipAddress": address,
        "groupSet": [],
        "stateReason": reason if each.reason else None,
        "architecture": "x86_64",
        "rootDeviceType": "instance-store",
        "blockDeviceMapping": [],
        "virtualizationType": "hvm",
        "clientToken": each.token,
        "tagSet": tag_set(tags),
        "networkInterfaceSet": [],
        "ebsOptimized": False,
    }


def _facts(
    call: Call, each: Instance, tags: Sequence[tuple[str, str]]
) -> dict[str, tuple[str, ...]]:
    return {
        "architecture": ("x86_64",),
        "availability-zone": (call.backend.region.zone,),
        "client-token": (each.token,),
        "dns-name": (each.name,),
        "image-id": (each.image,),
        "instance-id": (each.id,),
        "instance-state-code": (str(PHASE_CODES[each.phase]),),
        "instance-state-name": (str(each.phase),),
        "instance-type": (each.type,),
        "ip-address": (each.address,),
        "key-name": (each.key_name,),
        "launch-index": (str(each.index),),
        "launch-time": (each.launched_at.strftime("%Y-%m-%dT%H:%M:%S.000Z"),),
        "owner-id": (call.owner,),
        "private-dns-name": (each.name,),
        "private-ip-address": (each.address,),
        "reservation-id": (each.reservation,),
        **tag_facts(tags),
    }


def _health(each: Instance) -> str:
    if each.phase is not Phase.RUNNING:
        return "not-applicable"
    return "ok" if each.reachable else "initializing"


def _status_facts(call: Call, each: Instance) -> dict[str, tuple[str, ...]]:
    return {
        "availability-zone": (call.backend.region.zone,),
        "instance-state-code": (str(PHASE_CODES[each.phase]),),
        "instance-state-name": (str(each.phase),),
        "instance-status.status": (_health(each),),
        "system-status.status": (_health(each),),
    }


def _status(call: Call, each: Instance) -> Answer:
    health = _health(each)
    passed = {"ok": "passed", "initializing": "initializing"}.get(health)
    details: list[Value] = [{"name": "reachability", "status": passed}] if passed else []
    return {
        "instanceId": each.id,
        "availabilityZone": call.backend.region.zone,
        "instanceState": _state(each.phase),
        "systemStatus": {"status": health, "details": details},
        "instanceStatus": {"status": health, "details": details},
    }
