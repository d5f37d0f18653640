"""Images as grids publish them: GLUE 2.1 as JSON, and the tags that GLUE 1.3 has for software."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from mayfly.model import Image

VALIDITY_S = 12 * 3600
PLATFORMS = {"x86_64": "amd64", "aarch64": "arm64"}
PREFIX = "vm_"


def glue_2(images: Iterable[Image], host: str, now: datetime) -> dict[str, Any]:
    """Give a host and its images as GLUE 2.1 has them; the caller makes JSON of it."""
    created = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    manager = f"{host}_cloud.compute_manager"
    return {
        "CloudComputingManager": {
            "CreationTime": created,
            "Validity": VALIDITY_S,
            "ID": manager,
            "Name": f"Mayfly on {host}",
            "ProductName": "Mayfly",
            "HypervisorName": "QEMU",
            "VirtualDiskFormat": "qcow2",
        },
        "CloudComputingImage": [_image(image, manager, created) for image in images],
    }


def _image(image: Image, manager: str, created: str) -> dict[str, Any]:
    name, _, version = image.os.rpartition(" ")
    return {
        "CreationTime": created,
        "Validity": VALIDITY_S,
        "ID": image.pin,
        "Name": image.name,
        "Associations": {"CloudComputingManager": manager},
        "OSPlatform": PLATFORMS.get(image.arch, image.arch),
        "OSName": name or image.os,
        "OSVersion": version if name else "UNKNOWN",
        "Description": image.source,
        "AccessInfo": "none",
        "OtherInfo": {
            "version": image.version,
            "sha512": image.sha512,
            "endorsed_sha512": image.endorsed_sha512 or image.sha512,
            "tags": list(image.tags),
        },
    }


def glue_1(names: Iterable[str], prefix: str = PREFIX) -> list[str]:
    """Give the values of ``SoftwareRunTimeEnvironment``: a prefix, and what jobs ask for after it.

    Sites and users write these in expressions: what is neither letter, digit, ``.``, ``-`` nor
    ``_`` becomes ``_``.
    """
    return [prefix + re.sub(r"[^A-Za-z0-9._-]", "_", name) for name in names]
