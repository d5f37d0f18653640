"""RunInstances: from parameters to an order, and its answer."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from typing import cast

from mayfly.ec2.answer import Answer
from mayfly.ec2.call import Call
from mayfly.ec2.fault import Fault, invalid
from mayfly.ec2.instances import reservation
from mayfly.ec2.query import Query
from mayfly.ec2.tagging import check_tags, read_tags
from mayfly.ec2.values import InstanceType, Order
from mayfly.errors import Invalid
from mayfly.units import parse_duration

MOST = 1000
USER_DATA_BYTES = 16384
LASTS_TAG = "mayfly:for"
"""An instance with this tag is leased for that long: ``8h``."""

_TOKEN = re.compile(r"[\x21-\x7e]{1,64}")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+-]{0,199}")


def run_instances(call: Call) -> Answer:
    """Lease machines."""
    order = read_order(call)
    trial = call.query.flag("DryRun")
    call.query.finish()
    if trial:
        call.backend.machines.check(call.owner, order)
    call.ready()
    made = call.backend.machines.run(call.owner, order)
    tags = {each.id: list(order.tags) for each in made}
    return reservation(call, list(made), tags)


def read_order(call: Call) -> Order:
    """Read what is asked for, and check it against what there is.

    :raises Fault: something in it is wrong
    """
    query = call.query
    least = cast("int", _count(query, "MinCount"))
    most = cast("int", _count(query, "MaxCount"))
    if least > most:
        raise invalid("MinCount", "is greater than that of MaxCount")
    _check_place(call)
    tags = _instance_tags(query)
    return Order(
        image=find_image(call, query.require("ImageId")),
        type=_find_type(call.backend.catalogue.types(), query.text("InstanceType")),
        least=least,
        most=most,
        key_name=_key_name(call),
        user_data=_user_data(query),
        tags=tags,
        lasts_s=_lasts_s(dict(tags).get(LASTS_TAG)),
        token=_token(call),
    )


def find_image(call: Call, image: str) -> str:
    """Give the id of an image that this user may run.

    :raises Fault: there is none
    """
    if not _IMAGE.fullmatch(image):
        raise Fault(
            "InvalidAMIID.Malformed", f"Invalid id: {image[:64]!r}: it is not a name of an image"
        )
    if image not in {each.id for each in call.backend.catalogue.images(call.owner)}:
        raise Fault("InvalidAMIID.NotFound", f"The image id '[{image}]' does not exist")
    return image


def _count(query: Query, name: str) -> int | None:
    query.require(name)
    return query.whole(name, least=1, most=MOST)


def _check_place(call: Call) -> None:
    zone = call.query.text("Placement.AvailabilityZone")
    if zone not in ("", call.backend.region.zone):
        raise invalid("Placement.AvailabilityZone", f"must be {call.backend.region.zone}")
    ending = call.query.text("InstanceInitiatedShutdownBehavior", "stop")
    if ending not in ("stop", "terminate"):
        raise invalid("InstanceInitiatedShutdownBehavior", "must be stop or terminate")
    if ending == "terminate":
        message = "A machine that shuts itself down is stopped here, not terminated"
        raise Fault("UnsupportedOperation", message)


def _find_type(types: Iterable[InstanceType], wanted: str) -> str:
    names = [each.name for each in types]
    if wanted and wanted not in names:
        raise invalid("InstanceType", f"is not one of {', '.join(names)}")
    return wanted or names[0]


def _key_name(call: Call) -> str:
    name = call.query.text("KeyName")
    if name and name not in {each.name for each in call.backend.key_pairs.key_pairs(call.owner)}:
        raise Fault("InvalidKeyPair.NotFound", f"The key pair '{name}' does not exist")
    return name


def _user_data(query: Query) -> bytes:
    text = query.text("UserData", longest=USER_DATA_BYTES * 2)
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        raise invalid("UserData", "is not base64") from None
    if len(data) > USER_DATA_BYTES:
        raise invalid("UserData", f"is longer than {USER_DATA_BYTES} bytes")
    return data


def _instance_tags(query: Query) -> tuple[tuple[str, str], ...]:
    tags: list[tuple[str, str]] = []
    for each in query.structures("TagSpecification", most=10):
        kind = each.require("ResourceType")
        if kind != "instance":
            raise invalid("TagSpecification.ResourceType", "must be instance: nothing else is made")
        tags += read_tags(each)
    check_tags(tags)
    return tuple(sorted(tags))


def _lasts_s(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        lasts_s = int(parse_duration(text))
    except Invalid as error:
        raise invalid(f"the tag {LASTS_TAG}", f"is wrong: {error.message}; {error.hint}") from error
    if not 60 <= lasts_s <= 10 * 366 * 86400:
        raise invalid(f"the tag {LASTS_TAG}", "must be from a minute to ten years")
    return lasts_s


def _token(call: Call) -> str:
    token = call.query.text("ClientToken")
    if not token:
        # The very same request again is an echo, of the network or of an eavesdropper.
        return f"signature {call.signature}"
    if not _TOKEN.fullmatch(token):
        raise invalid("ClientToken", "must be at most 64 letters, digits and signs of ASCII")
    return token
