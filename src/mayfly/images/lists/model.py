"""What an image list holds, as frozen values; the keys of the format are in ``keys``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType

from mayfly.images.lists.rules import Refusal

TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"

Scalar = str | int | float | bool | None
NOTHING: Mapping[str, Scalar] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Endorser:
    """Who signs a list, as the list says."""

    dn: str
    ca: str
    """Name of the CA that issued the endorser's certificate."""
    email: str = ""
    creator: str = ""
    """The endorser's name for people."""
    extra: Mapping[str, Scalar] = field(default_factory=lambda: NOTHING)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedImage:
    """One image of a list."""

    identifier: str
    """UUID of the image, the same for all its versions; lower case."""
    version: str
    title: str
    sha512: str
    size_bytes: int
    uri: str
    arch: str
    hypervisor: str
    os: str
    os_version: str
    description: str = ""
    comments: str = ""
    format: str = ""
    """``qcow2``, ``OVA``, …: an addition of AppDB."""
    expires_at: datetime | None = None
    endorsement: str = ""
    """The image endorser's own signed word, base64."""
    extra: Mapping[str, Scalar] = field(default_factory=lambda: NOTHING)
    """All other keys, as they were."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFault:
    """An entry of a list that is not an image that could be used."""

    place: int
    """From 1."""
    identifier: str
    """Empty when it has none."""
    title: str
    refusal: Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """An image that its list's endorser takes back."""

    identifier: str
    version: str
    sha512: str
    reason: str
    revoked_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageList:
    """A list of images, without its signature."""

    identifier: str
    """UUID; lower case."""
    version: str
    title: str
    description: str
    source: str
    uri: str
    """Where the list itself is published."""
    created_at: datetime
    expires_at: datetime
    endorser: Endorser
    images: tuple[ListedImage, ...] = ()
    revoked: tuple[Revocation, ...] = ()
    faults: tuple[ImageFault, ...] = ()
    """Entries that were left out, with the reason."""
    wrapped: bool = True
    """Whether it has the ``hv:imagelist`` around it, which the first lists had not."""
    extra: Mapping[str, Scalar] = field(default_factory=lambda: NOTHING)

    def find(self, wanted: str) -> ListedImage | None:
        """Give the image of this identifier or SHA-512."""
        key = wanted.lower()
        return next((each for each in self.images if key in (each.identifier, each.sha512)), None)


def show_time(moment: datetime) -> str:
    """Write a time as the format has it."""
    return moment.astimezone(UTC).strftime(TIME_FORMAT)


def suggested_name(image: ListedImage) -> str:
    """Give a name for the catalogue; titles are free text and never become paths."""
    return catalogue_name(image.title, image.identifier)


def catalogue_name(title: str, identifier: str) -> str:
    """Give the name in the catalogue for a title."""
    words = re.sub(r"[^a-z0-9._-]+", "-", title.lower()).strip("-._")
    return words[:64].rstrip("-._") or f"image-{identifier[:8]}"
