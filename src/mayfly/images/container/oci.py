"""What the JSON of a container image says: index, manifest, configuration. Nothing here acts.

The formats are those of the OCI image specification and of Docker's manifests, version 2.2, which
differ in the names of their types only.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mayfly.errors import Invalid, Missing
from mayfly.images.container.packed import check_digest

JSON_BYTES = 4 << 20
_MOST_LAYERS = 512
_MOST_MANIFESTS = 1000
_ENV_BYTES = 256 << 10
_TEXT = 4096
REF_NAME = "org.opencontainers.image.ref.name"
_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_PLATFORM = "linux/amd64"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A file of the image, named by what is in it."""

    digest: str
    size: int
    kind: str = ""
    """Its media type."""
    name: str = ""
    """That an index gives it."""
    platform: str = ""

    @property
    def is_index(self) -> bool:
        """Tell whether it is a list of images."""
        return self.kind in _INDEXES


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Which files an image is made of."""

    config: Blob
    layers: tuple[Blob, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What the maker of a container image says about running it."""

    diff_ids: tuple[str, ...]
    """Digest of each layer, unpacked."""
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()


def parse_json(data: bytes, what: str) -> dict[str, Any]:
    """Read an object."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{what} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Invalid(f"{what} is not a JSON object")
    return value


def parse_index(data: bytes, what: str) -> tuple[Blob, ...]:
    """Read a list of images."""
    entries = _list(parse_json(data, what), "manifests", what)
    if len(entries) > _MOST_MANIFESTS:
        raise Invalid(f"{what} lists {len(entries)} images; at most {_MOST_MANIFESTS} are read")
    return tuple(_blob(entry, what) for entry in entries)


def parse_manifest(data: bytes, what: str) -> Manifest:
    """Read the manifest of one image."""
    value = parse_json(data, what)
    if value.get("schemaVersion") != 2:
        raise Invalid(f"{what} has schema version {value.get('schemaVersion')!r}; 2 is known")
    layers = tuple(_blob(entry, what) for entry in _list(value, "layers", what))
    if not 1 <= len(layers) <= _MOST_LAYERS:
        raise Invalid(f"{what} has {len(layers)} layers; 1 to {_MOST_LAYERS} are possible")
    config = _blob(value.get("config"), what)
    for layer in layers:
        if "tar" not in layer.kind or "encrypted" in layer.kind:
            raise Invalid(f"{what} has a layer of type '{layer.kind[:100]}', which cannot be read")
    return Manifest(config=config, layers=layers)


def parse_config(data: bytes, layers: int) -> Config:
    """Read an image's configuration; refuse what is for another machine."""
    what = "the configuration of the image"
    value = parse_json(data, what)
    platform = f"{value.get('os', 'linux')}/{value.get('architecture', 'amd64')}"
    if platform != _PLATFORM:
        raise Invalid(f"the image is for {platform[:60]}; only {_PLATFORM} can be run")
    rootfs = value.get("rootfs")
    found = _list(rootfs, "diff_ids", what) if isinstance(rootfs, dict) else []
    if len(found) != layers:
        raise Invalid(f"{what} speaks of {len(found)} layers, but there are {layers}")
    run = value.get("config") or {}
    if not isinstance(run, dict):
        raise Invalid(f"{what} is damaged at 'config'")
    return Config(
        diff_ids=tuple(check_digest(digest) for digest in found),
        env=_environment(run),
        working_dir=_text(run, "WorkingDir"),
        user=_text(run, "User"),
        entrypoint=_texts(run, "Entrypoint"),
        cmd=_texts(run, "Cmd"),
    )


def choose_named(found: Sequence[Blob], tag: str) -> list[Blob]:
    """Give those that a tag means; without one, all, if they are one image."""
    names = sorted({blob.name for blob in found if blob.name})
    there = f"tags there: {', '.join(name[:100] for name in names[:20])}" if names else ""
    if tag:
        wanted = [blob for blob in found if blob.name == tag]
        if not wanted:
            raise Missing(f"there is no image with the tag '{tag}' in it", hint=there)
        return wanted
    if len(names) > 1:
        raise Invalid("there are several images in it", hint=f"name one as :TAG; {there}")
    return list(found)


def choose_platform(found: Sequence[Blob]) -> Blob:
    """Give the image for our kind of machine; a single one that does not say is taken."""
    fitting = [blob for blob in found if blob.platform in (_PLATFORM, f"{_PLATFORM}/v1")]
    if fitting:
        return fitting[0]
    # Build tools add signatures and the like, which say that they are for an unknown platform.
    silent = [blob for blob in found if not blob.platform]
    if len(silent) == 1:
        return silent[0]
    there = sorted({blob.platform for blob in found if not blob.platform.startswith("unknown")})
    raise Invalid(
        f"there is no image for {_PLATFORM} in it",
        hint=f"it has: {', '.join(name[:60] for name in there[:20]) or 'none'}",
    )


def _blob(entry: object, what: str) -> Blob:
    if not isinstance(entry, dict):
        raise Invalid(f"{what} is damaged: an entry is no object")
    size = entry.get("size")
    if type(size) is not int or not 0 <= size < 1 << 50:
        raise Invalid(f"{what} is damaged: a size is {str(size)[:40]!r}")
    notes, place = entry.get("annotations"), entry.get("platform")
    return Blob(
        digest=check_digest(entry.get("digest")),
        size=size,
        kind=_text(entry, "mediaType"),
        name=_text(notes, REF_NAME) if isinstance(notes, dict) else "",
        platform=_platform(place) if isinstance(place, dict) else "",
    )


def _platform(place: dict[str, Any]) -> str:
    parts = (_text(place, key) for key in ("os", "architecture", "variant"))
    return "/".join(part for part in parts if part)


def _list(value: dict[str, Any], key: str, what: str) -> list[Any]:
    found = value.get(key)
    if not isinstance(found, list):
        raise Invalid(f"{what} is damaged: it has no list '{key}'")
    return found


def _text(value: dict[str, Any], key: str) -> str:
    found = value.get(key) or ""
    if not isinstance(found, str) or len(found) > _TEXT:
        raise Invalid(f"the image is damaged at '{key}': it is no short text")
    return found


def _texts(value: dict[str, Any], key: str) -> tuple[str, ...]:
    found = value.get(key) or []
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise Invalid(f"the image is damaged at '{key}': it is no list of texts")
    if sum(map(len, found)) > _ENV_BYTES:
        raise Invalid(f"the image is damaged at '{key}': it is too long")
    return tuple(found)


def _environment(run: dict[str, Any]) -> tuple[str, ...]:
    """Give the variables; those that are none are left out, as container tools do."""
    return tuple(
        entry
        for entry in _texts(run, "Env")
        if "\0" not in entry and entry.partition("=")[0] and "=" in entry and _is_text(entry)
    )


def _is_text(entry: str) -> bool:
    """Tell whether it can be written down: JSON has letters that are none."""
    return not any("\ud800" <= letter <= "\udfff" for letter in entry)
