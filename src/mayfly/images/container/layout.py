"""Open a container image in an OCI layout: a directory with an index and files named by digest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from mayfly.errors import Invalid, Missing
from mayfly.images.container.contents import Contents, with_diff_ids
from mayfly.images.container.oci import (
    JSON_BYTES,
    Blob,
    choose_named,
    choose_platform,
    parse_config,
    parse_index,
    parse_json,
    parse_manifest,
)
from mayfly.images.container.packed import Part, Source, check_digest
from mayfly.images.outside import opened_file

_NESTED = 3
"""An index may list an index: as deep as anybody makes them, and one more."""


@contextmanager
def opened_layout(directory: Path, tag: str, *, name: str = "") -> Iterator[Contents]:
    """Open the image that a tag means, or the only one; ``name`` is where it came from."""
    if not directory.is_dir():
        raise Missing(f"there is no directory {directory}")
    with ExitStack() as stack:
        version = parse_json(_small(directory / "oci-layout"), "oci-layout")
        if version.get("imageLayoutVersion") != "1.0.0":
            raise Invalid(f"{directory} is no OCI layout of version 1.0.0")
        index = parse_index(_small(directory / "index.json"), "index.json")
        chosen = choose_platform(choose_named(index, tag))
        for _ in range(_NESTED):
            if not chosen.is_index:
                break
            chosen = choose_platform(parse_index(_blob(directory, chosen), "the list of images"))
        manifest = parse_manifest(_blob(directory, chosen), "the manifest")
        config = parse_config(_blob(directory, manifest.config), len(manifest.layers))
        parts = [_part(stack, directory, layer) for layer in manifest.layers]
        yield Contents(
            layers=with_diff_ids(parts, config),
            config=config,
            source=f"{name or f'oci:{directory.name}'} (manifest {chosen.digest})",
        )


def _path(directory: Path, blob: Blob) -> Path:
    kind, _, value = check_digest(blob.digest).partition(":")
    return directory / "blobs" / kind / value


def _part(stack: ExitStack, directory: Path, blob: Blob) -> Part:
    file: BinaryIO = stack.enter_context(opened_file(_path(directory, blob)))
    size = os.fstat(file.fileno()).st_size
    if size != blob.size:
        raise Invalid(f"{blob.digest[:19]}… has {size} bytes, and {blob.size} are announced")
    return Part(fd=file.fileno(), offset=0, size=size, digest=blob.digest)


def _blob(directory: Path, blob: Blob) -> bytes:
    """Read one of the small files, and check it."""
    if blob.size > JSON_BYTES:
        raise Invalid(f"{blob.digest[:19]}… has {blob.size} bytes, too many for what it should be")
    with opened_file(_path(directory, blob)) as file:
        size = os.fstat(file.fileno()).st_size
        source = Source(Part(fd=file.fileno(), offset=0, size=size, digest=blob.digest))
        data = source.read(JSON_BYTES)
        source.check(f"{blob.digest[:19]}…")
    return data


def _small(path: Path) -> bytes:
    with opened_file(path) as file:
        data = file.read(JSON_BYTES + 1)
    if len(data) > JSON_BYTES:
        raise Invalid(f"{path.name} is too large")
    return data
