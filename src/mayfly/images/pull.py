"""Fetch an image and admit it to the catalogue: from a list, a URL, a directory or a registry."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mayfly.errors import Conflict, Invalid, Missing, Untrusted
from mayfly.images.catalogue import Catalogue, Existing, check_name
from mayfly.images.follow import Report, silent
from mayfly.images.importer import Origin, import_file
from mayfly.images.lists.offers import Offer
from mayfly.images.lists.uris import STRICT, UriRules
from mayfly.images.outside import sha512_of
from mayfly.images.registry.client import Registry
from mayfly.images.registry.machine import find_machine
from mayfly.images.transfer.digest import Digest
from mayfly.images.transfer.part import Downloads
from mayfly.images.transfer.source import DirectorySource, Source, find_source
from mayfly.images.transfer.whole import MOST_BYTES, Fetched, Terms, Wanted, fetched
from mayfly.model import Image

PULLED = "pulled"
"""The tag of images that could be had again from where they came."""
_ENDINGS = re.compile(r"\.(?:qcow2|raw|img|vmdk|ova|vdi)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pull:
    """One file, where it comes from, and what it becomes."""

    name: str
    source: Source
    wanted: Wanted
    origin: Origin
    sha512: str = ""
    """What the file must have, whatever else its source is asked by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Puller:
    """Where images go, and who looks on."""

    catalogue: Catalogue
    downloads: Downloads
    terms: Terms = field(default_factory=Terms)
    report: Report = silent
    existing: Existing = Existing.REFUSE
    make_room: Callable[[int], None] = lambda wanted_bytes: None
    """Called before an image of this size comes into the catalogue."""

    def pull(self, pull: Pull) -> Image:
        """Fetch and admit an image; one that is here with the same content stays as it is."""
        if (here := self.find_here(pull)) is not None:
            return here
        self.make_room(pull.wanted.size_bytes or 0)
        with fetched(pull.wanted, pull.source, self.downloads, self.terms) as got:
            # Whoever was at it before us may have wanted the same.
            if (here := self.find_here(pull)) is not None:
                return here
            sha512 = _check_sha512(pull, got)
            self.make_room(got.size_bytes)
            origin = replace(pull.origin, sha512=sha512)
            return import_file(
                got.file,
                pull.name,
                self.catalogue,
                origin,
                existing=self.existing,
                report=self.report,
            )

    def find_here(self, pull: Pull) -> Image | None:
        """Give the image if it is here; raises ``Conflict`` when another one has its name."""
        check_name(pull.name)
        try:
            here = self.catalogue.find(pull.name)
        except Missing:
            return None
        if pull.sha512 and here.endorsed_sha512 == pull.sha512:
            return here
        refused = self.existing is Existing.REFUSE
        if refused and here.disk.parent.parent == self.catalogue.own:
            raise Conflict(
                f"there is an image '{pull.name}' already, and it is another one",
                hint="give --force to replace it, --new-version to keep both, "
                "or --name for another name",
            )
        return None


def _check_sha512(pull: Pull, got: Fetched) -> str:
    if got.digest.algorithm == "sha512":
        found = got.digest.hex
    else:
        with got.file.open("rb") as file:
            found = sha512_of(file)
    if pull.sha512 and found != pull.sha512:
        raise Untrusted(
            f"{pull.source.name} is another file: its sha512 is {found},"
            f" and {pull.sha512} was expected"
        )
    return found


# --- what is wanted ------------------------------------------------------------------------------


def of_offer(offer: Offer, *, name: str = "", place: str = "", rules: UriRules = STRICT) -> Pull:
    """Want an image that a list vouches for; ``place`` is where it is had instead."""
    image = offer.image
    name = name or offer.name
    source = find_place(place, image.uri, image.sha512) if place else find_source(image.uri, rules)
    system = " ".join(word for word in (image.os, image.os_version) if word)
    return Pull(
        name=name,
        source=source,
        wanted=Wanted(
            name=name,
            digest=Digest(algorithm="sha512", hex=image.sha512),
            size_bytes=image.size_bytes,
        ),
        origin=Origin(
            os=system or "unknown",
            source=f"{source.name}, of list {offer.voucher.identifier}",
            version=image.version,
            tags=(PULLED,),
        ),
        sha512=image.sha512,
    )


def of_url(
    url: str, *, name: str = "", digest: Digest | None, most_bytes: int = MOST_BYTES
) -> Pull:
    """Want a file of the web, or of a directory; without a digest nobody vouches for it."""
    source = find_source(url)
    name = name or name_of(urlsplit(url).path)
    return Pull(
        name=name,
        source=source,
        wanted=Wanted(name=name, digest=digest, most_bytes=most_bytes),
        origin=Origin(source=source.name, tags=(PULLED,)),
        sha512=digest.hex if digest else "",
    )


def of_registry(registry: Registry, *, name: str = "", digest: Digest | None = None) -> Pull:
    """Want a machine image of a registry."""
    found = find_machine(registry)
    name = name or name_of(registry.reference.name)
    return Pull(
        name=name,
        source=registry.source(found.disk),
        wanted=Wanted(name=name, digest=found.disk.digest, size_bytes=found.disk.size_bytes),
        origin=Origin(
            os=found.os,
            source=f"docker://{registry.reference}",
            version=found.version,
            tags=(PULLED,),
        ),
        sha512=digest.hex if digest else "",
    )


def name_of(path: str) -> str:
    """Give a name for the catalogue from the last part of a path; raises ``Invalid``."""
    last = unquote(path.rpartition("/")[2]).lower()
    try:
        return check_name(_ENDINGS.sub("", last))
    except Invalid as error:
        raise Invalid(f"'{path[:200]}' gives no name for an image", hint="give --name") from error


def find_place(place: str, uri: str, sha512: str) -> Source:
    """Give the source for a file that is had from a place of the site: a directory, or a URL.

    In a directory it has the name that it has in the list's URL, or its SHA-512.
    """
    if "://" in place and not place.startswith("file:///"):
        return find_source(place)
    directory = Path(unquote(urlsplit(place).path) if place.startswith("file:///") else place)
    if not directory.is_dir():
        return DirectorySource(path=directory)
    names = [unquote(urlsplit(uri).path).rpartition("/")[2], sha512, f"sha512-{sha512}"]
    there = [directory / name for name in names if name and (directory / name).is_file()]
    if not there:
        raise Missing(
            f"{directory} has no file {' or '.join(name[:40] for name in names[:2])}",
            hint="put it there, or leave --from out",
        )
    return DirectorySource(path=there[0])
