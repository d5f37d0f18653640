"""What the site has: images, instance types, its one region and its one zone."""

from __future__ import annotations

from collections.abc import Sequence

from mayfly.ec2.answer import Answer
from mayfly.ec2.call import Call
from mayfly.ec2.fault import Fault, invalid
from mayfly.ec2.filters import holds, read_filters
from mayfly.ec2.ordering import find_image
from mayfly.ec2.paging import cut, read_page
from mayfly.ec2.values import InstanceType, MachineImage

_IMAGE_FILTERS = frozenset(
    {
        "architecture",
        "creation-date",
        "description",
        "image-id",
        "image-type",
        "is-public",
        "name",
        "owner-alias",
        "owner-id",
        "root-device-type",
        "state",
        "virtualization-type",
    }
)
_TYPE_FILTERS = frozenset(
    {
        "current-generation",
        "instance-type",
        "memory-info.size-in-mib",
        "processor-info.supported-architecture",
        "vcpu-info.default-vcpus",
    }
)
_REGION_FILTERS = frozenset({"endpoint", "opt-in-status", "region-name"})
_ZONE_FILTERS = frozenset({"region-name", "state", "zone-id", "zone-name", "zone-type"})


def describe_images(call: Call) -> Answer:
    """List the images that this user may run."""
    page = read_page(call.query, least=1)
    filters = read_filters(call.query, _IMAGE_FILTERS)
    ids = call.query.texts("ImageId")
    owners = call.query.texts("Owner")
    runners = call.query.texts("ExecutableBy")
    call.query.flag("IncludeDeprecated")
    call.query.flag("IncludeDisabled")
    call.ready()
    for each in ids:
        find_image(call, each)
    images = [
        each
        for each in call.backend.catalogue.images(call.owner)
        if (not ids or each.id in ids)
        and (not owners or _owned(call, each, owners))
        and (not runners or {"self", "all", call.owner} & set(runners))
        and holds(filters, _image_facts(each))
    ]
    shown, token = cut(images, lambda each: each.id, page)
    return {"imagesSet": [_image(each) for each in shown], "nextToken": token}


def describe_instance_types(call: Call) -> Answer:
    """List the sizes that have names."""
    page = read_page(call.query)
    filters = read_filters(call.query, _TYPE_FILTERS)
    names = call.query.texts("InstanceType", most=100)
    call.ready()
    types = call.backend.catalogue.types()
    missing = [name for name in names if name not in {each.name for each in types}]
    if missing:
        message = f"The following supplied instance types do not exist: [{', '.join(missing)}]"
        raise Fault("InvalidInstanceType", message)
    found = [
        each
        for each in types
        if (not names or each.name in names) and holds(filters, _type_facts(each))
    ]
    shown, token = cut(found, lambda each: each.name, page)
    return {"instanceTypeSet": [_type(each) for each in shown], "nextToken": token}


def describe_regions(call: Call) -> Answer:
    """Name the site as a region."""
    region = call.backend.region
    filters = read_filters(call.query, _REGION_FILTERS)
    names = call.query.texts("RegionName")
    call.query.flag("AllRegions")
    call.ready()
    _check_names("RegionName", names, region.name)
    facts = {
        "endpoint": (region.endpoint,),
        "opt-in-status": ("opt-in-not-required",),
        "region-name": (region.name,),
    }
    found: Answer = {
        "regionName": region.name,
        "regionEndpoint": region.endpoint,
        "optInStatus": "opt-in-not-required",
    }
    return {"regionInfo": [found] if holds(filters, facts) else []}


def describe_availability_zones(call: Call) -> Answer:
    """Name the site as a zone of that region."""
    region = call.backend.region
    filters = read_filters(call.query, _ZONE_FILTERS)
    names = call.query.texts("ZoneName") + call.query.texts("ZoneId")
    call.query.flag("AllAvailabilityZones")
    call.ready()
    _check_names("ZoneName", names, region.zone)
    facts = {
        "region-name": (region.name,),
        "state": ("available",),
        "zone-id": (region.zone,),
        "zone-name": (region.zone,),
        "zone-type": ("availability-zone",),
    }
    zone: Answer = {
        "zoneName": region.zone,
        "zoneState": "available",
        "regionName": region.name,
        "messageSet": [],
        "zoneId": region.zone,
        "zoneType": "availability-zone",
        "optInStatus": "opt-in-not-required",
    }
    return {"availabilityZoneInfo": [zone] if holds(filters, facts) else []}


def _check_names(parameter: str, names: Sequence[str], known: str) -> None:
    if set(names) - {known}:
        raise invalid(parameter, f"must be {known}: there is no other")


def _owned(call: Call, image: MachineImage, owners: Sequence[str]) -> bool:
    return image.owner in owners or ("self" in owners and image.owner == call.owner)


def _image_facts(each: MachineImage) -> dict[str, tuple[str, ...]]:
    return {
        "architecture": (each.arch,),
        "creation-date": (each.created_at.strftime("%Y-%m-%dT%H:%M:%S.000Z"),),
        "description": (each.title,),
        "image-id": (each.id,),
        "image-type": ("machine",),
        "is-public": ("false",),
        "name": (each.id,),
        "owner-id": (each.owner,),
        "root-device-type": ("instance-store",),
        "state": ("available",),
        "virtualization-type": ("hvm",),
    }


def _image(each: MachineImage) -> Answer:
    return {
        "imageId": each.id,
        "imageLocation": each.id,
        "imageState": "available",
        "imageOwnerId": each.owner,
        "isPublic": False,
        "architecture": each.arch,
        "imageType": "machine",
        "name": each.id,
        "description": each.title,
        "rootDeviceType": "instance-store",
        "virtualizationType": "hvm",
        "creationDate": each.created_at,
    }


def _type_facts(each: InstanceType) -> dict[str, tuple[str, ...]]:
    return {
        "current-generation": ("true",),
        "instance-type": (each.name,),
        "memory-info.size-in-mib": (str(each.shape.memory_mib),),
        "processor-info.supported-architecture": ("x86_64",),
        "vcpu-info.default-vcpus": (str(each.shape.cpus),),
    }


def _type(each: InstanceType) -> Answer:
    return {
        "instanceType": each.name,
        "currentGeneration": True,
        "supportedRootDeviceTypes": ["instance-store"],
        "supportedVirtualizationTypes": ["hvm"],
        "bareMetal": False,
        "processorInfo": {"supportedArchitectures": ["x86_64"]},
        "vCpuInfo": {"defaultVCpus": each.shape.cpus},
        "memoryInfo": {"sizeInMiB": each.shape.memory_mib},
        "hibernationSupported": False,
        "burstablePerformanceSupported": False,
    }
