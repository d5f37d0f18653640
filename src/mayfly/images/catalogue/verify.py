"""Look whether an image's disk is still what was admitted: every byte, not only size and time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from mayfly.errors import Untrusted
from mayfly.images.catalogue import check
from mayfly.images.trouble import explained
from mayfly.model import Image

_PIECE = 8 << 20


def verify(image: Image, report: Callable[[float], None] = lambda fraction: None) -> None:
    """Hash the disk again; raises ``Missing`` or ``Untrusted`` when it is not the one admitted."""
    check(image)
    digest, done = hashlib.sha512(), 0
    with explained(image.disk), image.disk.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
            done += len(piece)
            report(min(1.0, done / image.size_bytes))
    if digest.hexdigest() != image.sha512:
        raise Untrusted(
            f"the disk of image '{image.name}' is not the one that was admitted: its sha512 is"
            f" {digest.hexdigest()}, and {image.sha512} was recorded",
            hint=f"do not run it; build or import '{image.name}' again with --force",
        )
