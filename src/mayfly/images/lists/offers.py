"""Which listed images may be fetched and used now, and which of them a name means.

A name is a title as it is in the list, or in the form that the catalogue gives it; an identifier or
a SHA-512 means one image whatever its name, and ``NAME@sha512:DIGITS`` a name with just this
content. Where two lists have several versions of one image, the highest counts; two different
images of one name are no answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cmp_to_key

from mayfly.errors import Conflict, Invalid
from mayfly.images.lists.admission import Admission, Voucher, admission
from mayfly.images.lists.model import ListedImage, catalogue_name, suggested_name
from mayfly.images.lists.rules import Refusal, Rule
from mayfly.images.lists.store import TrustStore
from mayfly.images.lists.subscriptions import Subscription, Vouched
from mayfly.images.lists.versions import compare

_SHA512 = re.compile(r"[0-9a-f]{128}")
_PIN = "@sha512:"
_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """An image of a list that this site trusts, to be fetched from ``image.uri``."""

    name: str
    """What it is called in the catalogue, if nobody says otherwise."""
    image: ListedImage
    voucher: Voucher
    """The list that vouches for it; of several the one that holds longest."""


def trusted_offers(store: TrustStore, now: datetime) -> tuple[Offer, ...]:
    """Give all images that may be fetched and used now, by name and version."""
    return _offers(_admissions(store, now))


def trusted_offer(store: TrustStore, wanted: str, now: datetime) -> Offer:
    """Give the image that is meant by a name, identifier, SHA-512 or ``NAME@sha512:DIGITS``.

    Raises ``Untrusted``, naming the rule, when no list that holds has it, and ``Conflict`` when
    the name means several images.
    """
    name, sha512 = _parse(wanted)
    found = [
        offer
        for offer in _offers(_admissions(store, now))
        if sha512 in ("", offer.image.sha512) and _is_called(offer.image, name)
    ]
    if not found:
        raise _refusal(store, wanted, name, sha512, now).error(f"image '{wanted}'")
    newest = _newest(found)
    if len({offer.image.sha512 for offer in newest}) > 1:
        raise _several(wanted, newest)
    return newest[0]


def _parse(wanted: str) -> tuple[str, str]:
    """Give the name and the SHA-512 that are meant; one of them may be empty."""
    name, pin, digits = wanted.partition(_PIN)
    if pin and not _SHA512.fullmatch(digits.lower()):
        raise Invalid(f"'{wanted[:200]}' has no whole SHA-512", hint="give all its 128 digits")
    if not pin and _SHA512.fullmatch(name.lower()):
        return "", name.lower()
    if not name:
        raise Invalid("no image is named", hint="give a name, an identifier or a SHA-512")
    return name, digits.lower()


def _is_called(image: ListedImage, name: str) -> bool:
    names = (image.identifier, image.title, suggested_name(image))
    return not name or name in names or name.lower() == image.identifier


def _admissions(store: TrustStore, now: datetime) -> Iterator[Admission]:
    """Say of each image that a list has whether it may be used."""
    subscriptions = store.subscriptions()
    blocked = store.blocked()
    for sha512, lists in _by_content(subscriptions).items():
        yield admission(sha512, lists, blocked=blocked, now=now)


def _by_content(subscriptions: Iterable[Subscription]) -> dict[str, list[Subscription]]:
    """Give for each SHA-512 the lists that have it, without their other images.

    A list may have thousands: to go through all of them for each would take seconds.
    """
    found: dict[str, list[Subscription]] = {}
    for subscription in subscriptions:
        accepted = subscription.accepted
        if accepted is None:
            continue
        same: dict[str, list[Vouched]] = {}
        for each in accepted.images:
            same.setdefault(each.image.sha512, []).append(each)
        for sha512, images in same.items():
            only = replace(accepted, images=tuple(images))
            found.setdefault(sha512, []).append(replace(subscription, accepted=only))
    return found


def _offers(admissions: Iterable[Admission]) -> tuple[Offer, ...]:
    offers = [
        Offer(name=suggested_name(each.vouchers[0].image), image=voucher.image, voucher=voucher)
        for each in admissions
        for voucher in each.vouchers[:1]
    ]
    offers.sort(key=cmp_to_key(lambda one, other: compare(one.image.version, other.image.version)))
    return tuple(sorted(offers, key=lambda offer: offer.name))


def _newest(offers: list[Offer]) -> list[Offer]:
    """Leave out what is an older version of another one of them."""
    best: dict[str, Offer] = {}
    for offer in offers:
        old = best.get(offer.image.identifier)
        if old is None or compare(offer.image.version, old.image.version) > 0:
            best[offer.image.identifier] = offer
    return list(best.values())


def _several(wanted: str, offers: list[Offer]) -> Conflict:
    known = "; ".join(
        f"{each.image.identifier} ({each.image.version}, list {each.voucher.title!r})"
        for each in offers[:_SHOWN]
    )
    return Conflict(f"'{wanted}' means {len(offers)} images", hint=f"name one of them: {known}")


# --- why not -------------------------------------------------------------------------------------


def _refusal(store: TrustStore, wanted: str, name: str, sha512: str, now: datetime) -> Refusal:
    """Say why an image is not trusted: which rule it breaks in the list that knows it."""
    if not name:
        return store.admission(sha512, now).refusals[0]
    for subscription in store.subscriptions():
        for known in _known_as(subscription, name, sha512):
            if isinstance(known, Refusal):
                return known
            found = store.admission(known, now)
            if not found.trusted:
                return found.refusals[0]
    return Refusal(rule=Rule.UNENDORSED, detail=f"no subscribed list has an image '{wanted}'")


def _known_as(subscription: Subscription, name: str, sha512: str) -> Iterator[str | Refusal]:
    """Give what a list knows, or knew, of images of this name: their SHA-512, or what is wrong."""
    accepted = subscription.accepted
    if accepted is None:
        return
    for each in accepted.images:
        if _is_called(each.image, name) and sha512 in ("", each.image.sha512):
            yield each.image.sha512
    for fault in accepted.faults:
        if name in (fault.title, fault.identifier):
            yield fault.refusal
    for former in subscription.former:
        called = name in (former.title, catalogue_name(former.title, former.identifier))
        if (called or name.lower() == former.identifier) and sha512 in ("", former.sha512):
            yield former.sha512
    for revoked in accepted.revoked:
        if name.lower() == revoked.identifier and sha512 in ("", revoked.sha512):
            yield revoked.sha512
