"""A machine image as an OCI artifact: one blob is the disk, the configuration says what it is."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from typing import Any

from mayfly.errors import Invalid, Untrusted
from mayfly.images.catalogue import check
from mayfly.images.registry.client import MANIFEST, Descriptor, Manifest, Registry
from mayfly.images.registry.upload import push_blob
from mayfly.images.transfer.digest import Digest
from mayfly.images.transfer.pace import Meter, Watch, unwatched
from mayfly.model import Image

ARTIFACT = "application/vnd.mayfly.machine.v1"
CONFIG = "application/vnd.mayfly.machine.config.v1+json"
DISK = "application/vnd.mayfly.machine.disk.v1+qcow2"
FORMAT = 1
_ARCH = "x86_64"
_TEXT_MOST = 256
_CONTAINER = (".tar", "tar+", "diff.tar", "rootfs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """A machine image that a registry has; what it says about itself is not checked."""

    disk: Descriptor
    os: str
    version: str


def push_machine(image: Image, registry: Registry, watch: Watch = unwatched) -> Digest:
    """Put an image of the catalogue into a registry; gives the digest of its manifest."""
    check(image)
    config = _config(image)
    with image.disk.open("rb") as file:
        disk = Descriptor(
            media_type=DISK,
            digest=_hashed(file),
            size_bytes=image.size_bytes,
            annotations={"org.opencontainers.image.title": f"{image.name}.qcow2"},
        )
        push_blob(registry, disk, file, Meter(f"push {image.name}", image.size_bytes, watch))
    check(image)
    about = Descriptor(
        media_type=CONFIG, digest=_hashed(io.BytesIO(config)), size_bytes=len(config)
    )
    push_blob(registry, about, io.BytesIO(config), Meter(image.name, None))
    return registry.push_manifest(_manifest(image, about, disk))


def _hashed(file: Any) -> Digest:
    file.seek(0)
    return Digest(algorithm="sha256", hex=hashlib.file_digest(file, "sha256").hexdigest())


def _config(image: Image) -> bytes:
    table = {
        "format": FORMAT,
        "name": image.name,
        "version": image.version,
        "arch": image.arch,
        "os": image.os,
        "sha512": image.sha512,
        "disk_bytes": image.disk_bytes,
        "created_at": image.created_at,
        "source": image.source,
        "endorsed_sha512": image.endorsed_sha512,
        "derived": list(image.derived),
    }
    return json.dumps(table, indent=1, sort_keys=True).encode()


def _manifest(image: Image, config: Descriptor, disk: Descriptor) -> bytes:
    table = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": ARTIFACT,
        "config": config.as_json(),
        "layers": [disk.as_json()],
        "annotations": {
            "org.opencontainers.image.title": image.name,
            "org.opencontainers.image.version": image.version,
            "org.opencontainers.image.created": image.created_at,
        },
    }
    return json.dumps(table, indent=1).encode()


def find_machine(registry: Registry) -> Offered:
    """Give the machine image that the reference names.

    Raises ``Invalid`` when it is something else, such as a container image.
    """
    manifest = registry.resolve()
    layers = manifest.layers
    if len(layers) != 1 or any(word in layers[0].media_type for word in _CONTAINER):
        raise Invalid(
            f"{registry.reference} is no machine image: it has {len(layers)} layers,"
            f" the first of {layers[0].media_type if layers else 'no type'}",
            hint="a container image is imported instead: 'mayfly image import --help'",
        )
    about = _about(registry, manifest)
    if about.get("arch", _ARCH) != _ARCH:
        raise Invalid(f"{registry.reference} is an image for {about['arch']}, not {_ARCH}")
    return Offered(disk=layers[0], os=about.get("os", "unknown"), version=about.get("version", ""))


def _about(registry: Registry, manifest: Manifest) -> dict[str, str]:
    """Read what the image says about itself; others' artifacts have another configuration."""
    if manifest.config.media_type != CONFIG:
        return {}
    try:
        table = json.loads(registry.blob(manifest.config))
    except (ValueError, RecursionError) as error:
        raise Untrusted(f"the configuration of {registry.reference} is not JSON") from error
    if not isinstance(table, dict) or table.get("format") != FORMAT:
        raise Untrusted(f"the configuration of {registry.reference} has a format that is not known")
    texts = {key: table[key] for key in ("os", "version", "arch") if key in table}
    for key, text in texts.items():
        if type(text) is not str or len(text) > _TEXT_MOST or not text.isprintable():
            raise Untrusted(f"the configuration of {registry.reference} is damaged at: {key}")
    return texts
