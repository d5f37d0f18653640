"""What a container image brings, wherever it came from: its layers as open files, and its words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mayfly.images.build.farm.manifest import Manifest
from mayfly.images.container.oci import Config
from mayfly.images.container.packed import Part


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """A container image that is open for reading."""

    layers: tuple[Part, ...]
    config: Config | None
    """None: it has none, or in a form that is not read."""
    source: str
    """Where it came from, in words, with the digest of its manifest if it has one."""
    endorsed_sha512: str = ""
    """Of the file, if it was one."""
    manifest: Manifest | None = None
    """What it was built from, if it was built here."""


def with_diff_ids(parts: Sequence[Part], config: Config) -> tuple[Part, ...]:
    """Give the layers with the digests that the configuration has for them, unpacked."""
    pairs = zip(parts, config.diff_ids, strict=True)
    return tuple(replace(part, unpacked_digest=digest) for part, digest in pairs)
