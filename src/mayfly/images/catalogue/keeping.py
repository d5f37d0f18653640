"""Which images stay when room is short: when each was last used, and which are pinned.

Beside the images lie ``.use/NAME``, whose time is that of the last use, and ``.pin/NAME``. Both are
best effort: who may not write there (a user of the site's images) leaves only the access time of
the disk behind, which most file systems note once a day.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mayfly.errors import Conflict, Denied, Missing, Quota
from mayfly.images.catalogue import Catalogue
from mayfly.images.catalogue.usage import last_used, mark_of
from mayfly.images.pull import PULLED
from mayfly.model import Image
from mayfly.units import show_size

GRACE_S = 3600.0
"""An image that was used so lately may be just about to be used again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """An image, and what speaks for keeping it."""

    name: str
    size_bytes: int
    used_at: float
    """Seconds since the epoch."""
    pulled: bool
    """Whether it could be had again from where it came."""
    pinned: bool
    user: str = ""
    """What refers to it: a template, a machine."""

    def why_kept(self, now: float) -> str:
        """Say why it must stay; empty when it may go."""
        if self.user:
            return f"in use: {self.user}"
        if self.pinned:
            return "pinned"
        if not self.pulled:
            return "made here"
        return "used just now" if now - self.used_at < GRACE_S else ""


def to_evict(
    held: Iterable[Held], *, now: float, most_bytes: int | None = None, unused_s: float = 0.0
) -> list[Held]:
    """Choose which images go, the least recently used first.

    Without ``most_bytes`` all that may go and were not used for ``unused_s`` seconds; with it, of
    these as many as it takes until the rest has no more than that.
    """
    images = list(held)
    total = sum(each.size_bytes for each in images)
    gone = []
    for each in sorted(images, key=lambda one: (one.used_at, one.name)):
        if most_bytes is not None and total <= most_bytes:
            break
        if not each.why_kept(now) and now - each.used_at >= unused_s:
            gone.append(each)
            total -= each.size_bytes
    return gone


# --- on disk -------------------------------------------------------------------------------------


def pin(catalogue: Catalogue, name: str) -> None:
    """Keep an image whatever happens."""
    file = mark_of(_own(catalogue, name).disk.parent, ".pin")
    file.parent.mkdir(mode=0o755, exist_ok=True)
    file.touch()


def unpin(catalogue: Catalogue, name: str) -> None:
    """Let an image go again when room is short."""
    mark_of(_own(catalogue, name).disk.parent, ".pin").unlink(missing_ok=True)


def _own(catalogue: Catalogue, name: str) -> Image:
    image = catalogue.find(name)
    if image.disk.parent.parent != catalogue.own:
        raise Denied(
            f"image '{name}' is not yours but the site's: {image.disk.parent}",
            hint="ask whoever looks after this host",
        )
    return image


def held_images(catalogue: Catalogue, users: Mapping[str, str]) -> list[Held]:
    """Give the images of this user; ``users`` says of each name what refers to it."""
    found = []
    for image in Catalogue(own=catalogue.own, dirs=(catalogue.own,)).list():
        with contextlib.suppress(OSError):  # it was removed just now
            found.append(
                Held(
                    name=image.name,
                    size_bytes=image.size_bytes,
                    used_at=last_used(image),
                    pulled=PULLED in image.tags,
                    pinned=mark_of(image.disk.parent, ".pin").exists(),
                    user=users.get(image.name, ""),
                )
            )
    return found


def evict(catalogue: Catalogue, gone: Iterable[Held]) -> list[Held]:
    """Remove images; gives those that were removed. One that is being worked on stays."""
    done = []
    for each in gone:
        with contextlib.suppress(Conflict, Missing, Denied):
            catalogue.remove(each.name)
            done.append(each)
    return done


def make_room(
    catalogue: Catalogue, users: Mapping[str, str], *, quota_bytes: int, wanted_bytes: int
) -> list[Held]:
    """Have room for an image within the quota; gives the images that went for it.

    Raises ``Quota``, and removes nothing, when there are not enough that may go.
    """
    now = time.time()
    held = held_images(catalogue, users)
    most = quota_bytes - wanted_bytes
    gone = to_evict(held, now=now, most_bytes=most)
    left = sum(each.size_bytes for each in held) - sum(each.size_bytes for each in gone)
    if left > most:
        raise Quota(
            f"images may take {show_size(quota_bytes)} here, {show_size(left)} of that cannot go,"
            f" and {show_size(wanted_bytes)} are needed",
            hint="remove images ('mayfly image prune --dry-run' says why each stays), or set a"
            " larger image_quota",
        )
    return evict(catalogue, gone)
