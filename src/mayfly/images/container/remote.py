"""Open a container image in a registry: its layers are fetched first, and checked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from mayfly.errors import Invalid
from mayfly.images.container.contents import Contents, with_diff_ids
from mayfly.images.container.oci import JSON_BYTES, parse_config, parse_manifest
from mayfly.images.container.packed import Part
from mayfly.images.outside import opened_file
from mayfly.images.registry.client import Registry
from mayfly.images.registry.machine import DISK
from mayfly.images.transfer.part import Downloads
from mayfly.images.transfer.whole import Terms


@contextmanager
def opened_remote(registry: Registry, downloads: Downloads, terms: Terms) -> Iterator[Contents]:
    """Open the image that a reference names."""
    found = registry.resolve()
    if any(layer.media_type == DISK for layer in found.layers):
        raise Invalid(
            f"{registry.reference} is a machine image already",
            hint="'mayfly image pull' fetches it",
        )
    layers = parse_manifest(found.body, "the manifest").layers
    config = parse_config(registry.blob(found.config, JSON_BYTES), len(layers))
    with ExitStack() as stack:
        parts = []
        for layer in found.layers:
            got = stack.enter_context(registry.fetch_blob(layer, downloads, terms))
            file = stack.enter_context(opened_file(got.file))
            size = os.fstat(file.fileno()).st_size
            parts.append(Part(fd=file.fileno(), offset=0, size=size, digest=str(layer.digest)))
        yield Contents(
            layers=with_diff_ids(parts, config),
            config=config,
            source=f"docker://{registry.reference} (manifest {found.digest})",
        )
