"""The indices of images that are here: ``.chunks/SHA512`` beside the images, the disk's sum.

They say which chunks this host has, for the next version of an image and for its neighbours.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mayfly.errors import Invalid, Untrusted
from mayfly.images.catalogue import Catalogue
from mayfly.images.chunks.content import Content, content_of
from mayfly.images.chunks.cut import CUTTER, Cutter, cut
from mayfly.images.chunks.index import Index, parse_index, render
from mayfly.images.lists.files import write_whole
from mayfly.model import Image

PLACE = ".chunks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """The indices of the images of one user."""

    catalogue: Catalogue

    def find(self, image: Image) -> Index | None:
        """Give the index of an image, if there is one."""
        file = image.disk.parent.parent / PLACE / image.sha512
        try:
            return parse_index(file.read_bytes())
        except (OSError, Untrusted):
            return None

    def put(self, image: Image, index: Index) -> None:
        """Keep the index of an image."""
        place = self.catalogue.own / PLACE
        place.mkdir(mode=0o755, exist_ok=True)
        write_whole(place / image.sha512, render(index).encode())

    def ensure(self, image: Image, cutter: Cutter = CUTTER) -> Index:
        """Give the index of an image, cutting it if need be: some seconds for each GiB."""
        found = self.find(image)
        if found is not None and found.cutter == cutter.name:
            return found
        with content_of(image.disk) as content:
            made = cut(content, image.endorsed_sha512 or image.sha512, cutter)
        with contextlib.suppress(OSError):  # the site's images are not ours to write to
            self.put(image, made)
        return made

    def sweep(self) -> None:
        """Remove the indices of images that are gone."""
        known = {image.sha512 for image in self.catalogue.list()}
        for file in (self.catalogue.own / PLACE).glob("*"):
            if file.name not in known:
                file.unlink(missing_ok=True)

    @contextmanager
    def seeds(self, likely: str) -> Iterator[Iterator[tuple[Index, Content]]]:
        """Give what the images here have; the one of this name is cut if it was not yet."""
        with contextlib.ExitStack() as stack:
            yield self._seeds(likely, stack)

    def _seeds(self, likely: str, stack: contextlib.ExitStack) -> Iterator[tuple[Index, Content]]:
        images = self.catalogue.list()
        for image in sorted(images, key=lambda each: each.name != likely):
            # One that is damaged or foreign is no seed, and no reason to fail.
            with contextlib.suppress(OSError, Invalid):
                index = self.ensure(image) if image.name == likely else self.find(image)
                if index is not None:
                    yield index, stack.enter_context(content_of(image.disk))
