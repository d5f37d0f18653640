"""Tags: reading, CreateTags, DeleteTags, DescribeTags."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mayfly.ec2.answer import Answer
from mayfly.ec2.call import Call
from mayfly.ec2.fault import Fault, invalid
from mayfly.ec2.filters import holds, read_filters
from mayfly.ec2.instances import find_instances
from mayfly.ec2.keypairs import find_key_pair
from mayfly.ec2.paging import cut, read_page
from mayfly.ec2.query import Query
from mayfly.ec2.values import Tag
from mayfly.errors import Quota

MOST = 50
"""Tags on one thing, as EC2 has it."""
KEY_LENGTH = 128

_FILTERS = frozenset({"key", "resource-id", "resource-type", "value", "tag-key", "tag-value"})


def read_tags(query: Query) -> list[tuple[str, str]]:
    """Read ``Tag.1.Key``, ``Tag.1.Value``; a value that is not there is empty."""
    found = query.structures("Tag", most=MOST)
    return [
        (each.require("Key", longest=KEY_LENGTH), each.text("Value", longest=256)) for each in found
    ]


def check_tags(tags: Sequence[tuple[str, str]]) -> None:
    """Refuse tags that cannot be put.

    :raises Fault: too many, one twice, one that is not the user's to put
    """
    keys = [key for key, _ in tags]
    if len(set(keys)) != len(keys):
        raise invalid("Tag.Key", "comes twice")
    if len(keys) > MOST:
        raise Fault("TagLimitExceeded", f"More than {MOST} tags")
    if any(key.lower().startswith("aws:") for key in keys):
        raise invalid("Tag.Key", "must not begin with aws:")


def create_tags(call: Call) -> Answer:
    """Put tags on instances and key pairs."""
    resources = _resources(call)
    tags = read_tags(call.query)
    if not tags:
        raise Fault("MissingParameter", "The request must contain the parameter Tag")
    check_tags(tags)
    call.ready()
    put = [Tag(resource=each, key=key, value=value) for each in resources for key, value in tags]
    try:
        call.backend.tags.put_tags(call.owner, put, most=MOST)
    except Quota as error:
        raise Fault("TagLimitExceeded", error.message) from error
    return {"return": True}


def delete_tags(call: Call) -> Answer:
    """Take tags off; without a value whatever the value is, without a key all."""
    resources = _resources(call)
    wanted = [
        (
            each.require("Key", longest=KEY_LENGTH),
            each.text("Value", longest=256) if each.has("Value") else None,
        )
        for each in call.query.structures("Tag", most=1000)
    ]
    call.ready()
    gone: list[tuple[str, str, str | None]]
    if not wanted:
        tags = call.backend.tags.tags(call.owner)
        gone = [(tag.resource, tag.key, None) for tag in tags if tag.resource in resources]
    else:
        gone = [(each, key, value) for each in resources for key, value in wanted]
    call.backend.tags.remove_tags(call.owner, gone)
    return {"return": True}


def describe_tags(call: Call) -> Answer:
    """List tags."""
    page = read_page(call.query)
    filters = read_filters(call.query, _FILTERS)
    call.ready()
    tags = [tag for tag in call.backend.tags.tags(call.owner) if holds(filters, _facts(tag))]
    shown, token = cut(tags, lambda tag: f"{tag.resource} {tag.key}", page)
    return {
        "tagSet": [
            {
                "resourceId": tag.resource,
                "resourceType": _kind(tag.resource),
                "key": tag.key,
                "value": tag.value,
            }
            for tag in shown
        ],
        "nextToken": token,
    }


def _facts(tag: Tag) -> dict[str, tuple[str, ...]]:
    return {
        "key": (tag.key,),
        "tag-key": (tag.key,),
        "value": (tag.value,),
        "tag-value": (tag.value,),
        "resource-id": (tag.resource,),
        "resource-type": (_kind(tag.resource),),
        f"tag:{tag.key}": (tag.value,),
    }


def _kind(resource: str) -> str:
    return "instance" if resource.startswith("i-") else "key-pair"


def _resources(call: Call) -> tuple[str, ...]:
    resources = call.query.texts("ResourceId")
    if not resources:
        raise Fault("MissingParameter", "The request must contain the parameter ResourceId")
    find_instances(call, _of(resources, "i-"))
    for key in _of(resources, "key-"):
        find_key_pair(call, key)
    other = [each for each in resources if not each.startswith(("i-", "key-"))]
    if other:
        raise Fault(
            "InvalidID", f"The ID '{other[0]}' is not valid: instances and key pairs have tags"
        )
    return tuple(dict.fromkeys(resources))


def _of(resources: Iterable[str], prefix: str) -> tuple[str, ...]:
    return tuple(each for each in resources if each.startswith(prefix))
