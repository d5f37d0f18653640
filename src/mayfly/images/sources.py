"""What an image can be imported from, as it is written on the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from mayfly.images.catalogue import Catalogue
from mayfly.images.container import sif
from mayfly.images.container.archive import opened_archive
from mayfly.images.container.convert import Opener, Wish, import_container
from mayfly.images.container.layout import opened_layout
from mayfly.images.container.remote import opened_remote
from mayfly.images.container.siffile import opened_sif
from mayfly.images.cosign.book import SignatureBook
from mayfly.images.follow import Report, silent
from mayfly.images.importer import import_image
from mayfly.images.outside import about, opened_file
from mayfly.images.registry import Access, Registry, parse_reference
from mayfly.images.registry.reference import SCHEME
from mayfly.images.transfer.part import Downloads
from mayfly.images.transfer.whole import Terms
from mayfly.model import Image

ARCHIVE, LAYOUT = "docker-archive:", "oci:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """Where things are kept that are fetched, and how."""

    cache: Path
    access: Access = field(default_factory=Access)
    terms: Terms = field(default_factory=Terms)
    book: SignatureBook = field(default_factory=SignatureBook)
    """Which images of registries must be signed."""

    @property
    def downloads(self) -> Downloads:
        """Give where what is on its way lies."""
        return Downloads(directory=self.cache / "downloads")


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A path, and the tag of one image of several in it."""

    path: Path
    tag: str


def parse_named(text: str) -> Named:
    """Part a path from a tag: ``PATH`` or ``PATH:TAG``, where either may hold a colon."""
    if Path(text).exists():
        return Named(path=Path(text), tag="")
    at = text.find(":")
    while at > 0:
        if Path(text[:at]).exists():
            return Named(path=Path(text[:at]), tag=text[at + 1 :])
        at = text.find(":", at + 1)
    return Named(path=Path(text), tag="")


def import_source(
    source: str,
    wish: Wish,
    catalogue: Catalogue,
    ways: Ways,
    *,
    report: Report = silent,
) -> Image:
    """Bring in an image from whatever ``source`` names."""
    if source.startswith(SCHEME):
        return _import_remote(source, wish, catalogue, ways, report)
    opener = container_opener(source, report)
    if opener is None:
        return import_image(
            Path(source),
            wish.name,
            catalogue,
            os_name=wish.os or "unknown",
            existing=wish.existing,
            report=report,
        )
    with about(source):
        return import_container(opener, wish, catalogue, cache=ways.cache, report=report)


def _import_remote(
    source: str, wish: Wish, catalogue: Catalogue, ways: Ways, report: Report
) -> Image:
    registry = Registry(parse_reference(source), ways.access)
    report("look for signatures", None)
    signed = ways.book.check(registry)
    with about(source):
        made = import_container(
            lambda _: opened_remote(registry, ways.downloads, ways.terms),
            wish,
            catalogue,
            cache=ways.cache,
            report=report,
        )
    ways.book.note(made, signed)
    return made


def container_opener(source: str, report: Report) -> Opener | None:
    """Give what opens a container image; None when the source is a disk."""
    if source.startswith(ARCHIVE):
        named = parse_named(source.removeprefix(ARCHIVE))
        return partial(opened_archive, named.path, named.tag, report=report)
    if source.startswith(LAYOUT):
        named = parse_named(source.removeprefix(LAYOUT))
        return lambda _: opened_layout(named.path, named.tag)
    with about(Path(source)), opened_file(Path(source)) as file:
        head = file.read(sif.HEADER_BYTES)
    return partial(opened_sif, Path(source)) if sif.is_sif(head) else None
