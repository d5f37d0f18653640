"""A site's word about the images of a test's service: lists that are trusted, and a policy."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mayfly.images.catalogue.record import read_record
from mayfly.images.lists.check import Principal
from mayfly.images.lists.model import Revocation
from mayfly.images.lists.store import TrustStore
from mayfly.images.lists.subscriptions import Accepted, Subscription, Vouched
from mayfly.model import Image
from tests.unit.images.lists.samples import LIST, listed

JO = Principal(dn="/CN=Jo", ca="/CN=CA")


def vouch(trust: Path, *images: Image, life: timedelta = timedelta(days=1)) -> None:
    """Have a list with these images, and no others, hold."""
    save(trust, accepted(images, life))


def take_back(trust: Path, image: Image, reason: str = "a hole") -> None:
    """Have the list's endorser take an image back."""
    gone = Revocation(
        identifier=listed(1).identifier,
        version="1.0",
        sha512=image.sha512,
        reason=reason,
        revoked_at=_now(),
    )
    save(trust, replace(accepted((), timedelta(days=1)), revoked=(gone,)))


def accepted(images: tuple[Image, ...], life: timedelta) -> Accepted:
    """Make the record of a list."""
    until = _now() + life
    listed_images = [
        listed(number, title=image.name, sha512=image.sha512)
        for number, image in enumerate(images, start=1)
    ]
    return Accepted(
        version="1",
        title="Ours",
        created_at=_now(),
        until=until,
        text_sha512="t",
        message_sha512="m",
        signer=JO,
        images=tuple(Vouched(image=each, until=until) for each in listed_images),
        accepted_at=_now(),
    )


def save(trust: Path, has: Accepted) -> None:
    """Write it down as an update does."""
    store = TrustStore(directory=trust)
    made = Subscription(
        identifier=LIST,
        url="file:///nosuch",
        endorsers=(JO,),
        added_at=_now(),
        accepted=has,
    )
    with store.changing():
        store.save(made)


def image_in(images: Path, name: str = "debian-12") -> Image:
    """Give an image of the service."""
    return read_record(images / name)


def write_policy(
    file: Path, *rules: str, revoked: str = "mark", endorsed: str = "required"
) -> None:
    """Write a policy as an admin does: in one step."""
    text = f'[policy]\nendorsed = "{endorsed}"\nrevoked = "{revoked}"\n' + "".join(rules)
    fresh = file.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(file)


ALL = '[[policy.allow]]\nwho = ["*"]\nimages = ["*"]\n'
EVERYTHING = ALL + 'networks = ["open", "restricted"]\nroot = true\n'


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
