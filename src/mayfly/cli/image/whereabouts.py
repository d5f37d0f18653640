"""What ``mayfly image show`` tells beyond the record: where an image lies, is hot, is endorsed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

from mayfly.config import Paths
from mayfly.errors import MayflyError
from mayfly.host import client
from mayfly.host.permission import gate_of
from mayfly.images.catalogue import Catalogue
from mayfly.images.catalogue.tested import read_tests
from mayfly.images.container.said import read_said
from mayfly.images.lists.admission import Admission
from mayfly.model import Image


def admission_of(image: Image, paths: Paths) -> Admission | None:
    """Say what the subscribed lists have of an image; None where nothing is subscribed."""
    if not any(directory.is_dir() for directory in (paths.trust, paths.site_trust)):
        return None
    return gate_of(paths).admission(image, datetime.now(UTC))


def endorsed_of(images: Iterable[Image], paths: Paths) -> dict[str, bool]:
    """Tell which images a list, or a key, vouches for now; by the SHA-512 of their disks.

    One gate is asked for all: it looks once whether anything has changed.
    """
    gate, now = gate_of(paths), datetime.now(UTC)
    return {each.sha512: gate.admission(each, now).trusted for each in images}


def surroundings(image: Image, catalogue: Catalogue, paths: Paths) -> dict[str, Any]:
    """Give what is known of an image besides its record, by the words that are shown."""
    name = image.name.partition("@")[0]
    aliases = [alias for alias in catalogue.aliases() if _same(catalogue, alias, image)]
    found = admission_of(image, paths)
    until = found.until if found is not None else None
    return {
        "pin": image.pin,
        "stored": str(image.disk.parent),
        "versions": [each.version for each in catalogue.versions(name)],
        "aliases": aliases,
        "templates": templates_of(image, paths),
        "standbys": standbys_of(image),
        "endorsed": "" if found is None else str(found),
        "expires": "" if until is None else until.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "tested": read_tests(image.disk.parent, image.sha512).summary,
        **container_of(image),
    }


def container_of(image: Image) -> dict[str, Any]:
    """Give what the container image said that it was made of; empty when there was none."""
    said = read_said(image.disk.parent)
    if said is None:
        return {}
    return {
        "container_entrypoint": list(said.entrypoint),
        "container_cmd": list(said.cmd),
        "container_env": list(said.env),
        "container_working_dir": said.working_dir,
        "container_user": said.user,
    }


def _same(catalogue: Catalogue, alias: str, image: Image) -> bool:
    try:
        return catalogue.find(alias).disk == image.disk
    except MayflyError:
        return False


def templates_of(image: Image, paths: Paths) -> list[str]:
    """Give the templates that were made of this very disk, in words."""
    found = []
    for meta in sorted(paths.templates.glob("[!.]*/template.json")):
        try:
            values = json.loads(meta.read_text())
            shape = values["shape"]
            if values["image_sha512"] == image.sha512:
                size = f"{shape['cpus']} CPUs, {shape['memory_mib']} MiB"
                found.append(f"{str(values['key'])[:12]} ({size})")
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def standbys_of(image: Image) -> list[str]:
    """Give how many machines of it wait at the host service, by size; none without a service."""
    try:
        connection = client.connect(client.socket_path())
        if connection is None:
            return []
        with closing(connection):
            answer, _ = client.call(connection, "status", {})
    except MayflyError:
        return []
    return [
        f"{item['ready']} of {item['wanted']} ({item['cpus']} CPUs, {item['memory_mib']} MiB)"
        for item in answer.get("standby", ())
        if item.get("image") == image.name
    ]
