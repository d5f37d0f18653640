"""Publish an image in chunks for any web server: the signed index, and one file with all chunks."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from mayfly.errors import Conflict
from mayfly.images.chunks.content import content_of
from mayfly.images.chunks.index import Index
from mayfly.images.chunks.shelf import Shelf
from mayfly.images.chunks.signed import sign_index
from mayfly.images.lists.files import write_whole
from mayfly.images.lists.openssl import Signer
from mayfly.images.room import check_room
from mayfly.images.transfer.pace import Meter, Watch, unwatched
from mayfly.images.trouble import explained
from mayfly.model import Image

INDEX, CONTENT = ".chunks", ".content"
"""Added to the URL of the image file."""


def publish(
    image: Image, shelf: Shelf, signer: Signer, place: Path, watch: Watch = unwatched
) -> Index:
    """Write ``PLACE.chunks`` and ``PLACE.content``; what is there is replaced as a whole."""
    if place.is_dir():
        raise Conflict(
            f"{place} is a directory",
            hint="give the place of the image file, such as DIR/el9.qcow2",
        )
    index = shelf.ensure(image)
    signed = sign_index(index, signer)
    with explained(place.parent):
        check_room(place.parent, index.content_bytes)
        # The content comes first: an index never speaks of what is not there.
        _write_content(image, index, Path(f"{place}{CONTENT}"), watch)
        write_whole(Path(f"{place}{INDEX}"), signed)
    return index


def _write_content(image: Image, index: Index, file: Path, watch: Watch) -> None:
    meter = Meter(f"write {file.name}", index.content_bytes, watch)
    meter.begin(0, index.content_bytes)
    descriptor, name = tempfile.mkstemp(prefix=".new-", dir=file.parent)
    try:
        with os.fdopen(descriptor, "wb") as new, content_of(image.disk) as content:
            for chunk in index.chunks:
                new.write(content.read(chunk.at, chunk.size))
                meter.add(chunk.size)
            new.flush()
            os.fchmod(new.fileno(), 0o644)
            os.fsync(new.fileno())
        Path(name).rename(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
