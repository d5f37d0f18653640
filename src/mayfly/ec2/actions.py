"""The actions there are, and the way of one request through them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from mayfly.ec2 import instances, keypairs, offerings, ordering, tagging
from mayfly.ec2.answer import Answer
from mayfly.ec2.call import Call
from mayfly.ec2.fault import Fault

VERSION = "2016-11-15"

ACTIONS: Mapping[str, Callable[[Call], Answer]] = {
    "CreateKeyPair": keypairs.create_key_pair,
    "CreateTags": tagging.create_tags,
    "DeleteKeyPair": keypairs.delete_key_pair,
    "DeleteTags": tagging.delete_tags,
    "DescribeAvailabilityZones": offerings.describe_availability_zones,
    "DescribeImages": offerings.describe_images,
    "DescribeInstanceStatus": instances.describe_instance_status,
    "DescribeInstanceTypes": offerings.describe_instance_types,
    "DescribeInstances": instances.describe_instances,
    "DescribeKeyPairs": keypairs.describe_key_pairs,
    "DescribeRegions": offerings.describe_regions,
    "DescribeTags": tagging.describe_tags,
    "GetConsoleOutput": instances.get_console_output,
    "ImportKeyPair": keypairs.import_key_pair,
    "RebootInstances": instances.reboot_instances,
    "RunInstances": ordering.run_instances,
    "StartInstances": instances.start_instances,
    "StopInstances": instances.stop_instances,
    "TerminateInstances": instances.terminate_instances,
}
"""``docs/reference/ec2.md`` lists the same ones."""


def name_of(values: Mapping[str, str]) -> tuple[str, str]:
    """Give the action and the version of the API that a request asks for.

    Older versions differ in actions that are not here, so any version is answered, as itself.

    :raises Fault: no action, or one that is not here
    """
    action = values.get("Action", "")
    version = values.get("Version", VERSION)
    if not action:
        raise Fault("MissingAction", "The request must contain the parameter Action")
    if action not in ACTIONS:
        message = f"The action {action[:64]} is not valid for this web service."
        raise Fault("InvalidAction", message)
    if not re.fullmatch(r"20[0-9]{2}-[0-9]{2}-[0-9]{2}", version):
        raise Fault("InvalidParameterValue", "The value of Version is not a date")
    return action, version
