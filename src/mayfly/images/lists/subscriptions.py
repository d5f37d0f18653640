"""A subscribed list as it stands at this site, and what an update makes of it: no files, no clock.

What was accepted holds until it expires, whatever is offered meanwhile: somebody between the site
and the list's server can keep a new list away, but neither stop images nor bring old ones back.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime

from mayfly.images.lists.check import Expected, Last, Principal, Verified
from mayfly.images.lists.model import ImageFault, ListedImage, Revocation
from mayfly.images.lists.rules import Refusal, Rule

FORMER_MOST = 10_000
PASSING = frozenset({Rule.CRL_MISSING, Rule.CRL_EXPIRED, Rule.CRL_FUTURE})
"""What is wrong with a revocation list says nothing about the endorser: no *new* list is accepted
then, and the one that was goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vouched:
    """An image that an accepted list has, with the word of its image endorser if one was asked."""

    image: ListedImage
    """Without the endorsement itself: the message has it."""
    until: datetime
    by: Principal | None = None
    refusal: Refusal | None = None
    """Why it is not trusted, though the list has it."""
    endorsement_sha512: str = ""
    """Of the endorsement that was found signed: signatures stay what they are."""
    signed_until: datetime | None = None
    fingerprint: str = ""
    """Of the image endorser's certificate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Former:
    """An image that the list had once."""

    sha512: str
    identifier: str
    version: str
    title: str
    gone_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The newest version of a list that kept all rules."""

    version: str
    title: str
    created_at: datetime
    until: datetime
    """When the list, or the certificate of its signer, expires."""
    text_sha512: str
    message_sha512: str
    """Of the signed message, which is kept to be checked again at each update."""
    signer: Principal
    images: tuple[Vouched, ...]
    revoked: tuple[Revocation, ...] = ()
    faults: tuple[ImageFault, ...] = ()
    certificates: tuple[str, ...] = ()
    """Those of image endorsers, PEM: they are checked again at each update."""
    accepted_at: datetime

    def last(self) -> Last:
        """Give what the next version is compared with."""
        return Last(version=self.version, created_at=self.created_at, text_sha512=self.text_sha512)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What was wrong at the last update."""

    words: str
    refusal: Refusal | None
    """None when the list could not be fetched at all."""
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """A list that this site follows."""

    identifier: str
    url: str
    endorsers: tuple[Principal, ...]
    """Who may sign this list."""
    image_endorsers: tuple[Principal, ...] = ()
    """When there are any, each image needs the word of one of them as well."""
    added_at: datetime
    updated_at: datetime | None = None
    """When the list was last seen and found good."""
    accepted: Accepted | None = None
    withdrawn: Refusal | None = None
    """Why the accepted list is trusted no more, though it has not expired."""
    former: tuple[Former, ...] = ()
    trouble: Trouble | None = None

    def expected(self) -> Expected:
        """Give what a list must be to be taken for this one."""
        return Expected(
            endorsers=self.endorsers,
            identifier=self.identifier,
            last=self.accepted.last() if self.accepted else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Vouching:
    """What an update finds out about the images of a list that was checked."""

    images: tuple[Vouched, ...]
    certificates: tuple[str, ...] = ()


def accept(verified: Verified, vouching: Vouching, message: bytes, *, now: datetime) -> Accepted:
    """Make the record of a list that was checked."""
    images = verified.images
    return Accepted(
        version=images.version,
        title=images.title,
        created_at=images.created_at,
        until=verified.until,
        text_sha512=verified.text_sha512,
        message_sha512=hashlib.sha512(message).hexdigest(),
        signer=Principal(dn=verified.signer.subject.slash, ca=verified.signer.issuer.slash),
        images=vouching.images,
        revoked=images.revoked,
        faults=images.faults,
        certificates=vouching.certificates,
        accepted_at=now,
    )


# --- what an update brings -----------------------------------------------------------------------


def after_success(old: Subscription, accepted: Accepted, *, now: datetime) -> Subscription:
    """Take over a list that was found good, new or again."""
    here = {each.image.sha512 for each in accepted.images}
    gone = [each for each in _had(old, now) if each.sha512 not in here]
    return replace(
        old,
        accepted=accepted,
        withdrawn=None,
        trouble=None,
        updated_at=now,
        endorsers=_pinned(old.endorsers, accepted.signer),
        former=tuple(gone[:FORMER_MOST]),
    )


def _had(old: Subscription, now: datetime) -> list[Former]:
    """Give all images that the list had, those that left last first."""
    images = old.accepted.images if old.accepted else ()
    recent = [
        Former(
            sha512=each.image.sha512,
            identifier=each.image.identifier,
            version=each.image.version,
            title=each.image.title,
            gone_at=now,
        )
        for each in images
    ]
    known = {each.sha512 for each in recent}
    return [*recent, *(each for each in old.former if each.sha512 not in known)]


def _pinned(endorsers: tuple[Principal, ...], signer: Principal) -> tuple[Principal, ...]:
    """Write down the CA of an endorser who was named without one: it is that CA from now on."""
    return tuple(
        signer if not each.ca and each.is_meant(signer.dn, signer.ca) else each
        for each in endorsers
    )


def after_refusal(old: Subscription, refusal: Refusal, *, now: datetime) -> Subscription:
    """Note that what was offered is no good; what was accepted stays."""
    return replace(old, trouble=_trouble(old, str(refusal), refusal, now))


def after_failure(old: Subscription, words: str, *, now: datetime) -> Subscription:
    """Note that nothing could be fetched; what was accepted stays."""
    return replace(old, trouble=_trouble(old, words, None, now))


def _trouble(old: Subscription, words: str, refusal: Refusal | None, now: datetime) -> Trouble:
    since = old.trouble.since if old.trouble else now
    return Trouble(words=words, refusal=refusal, since=since)


def after_second_look(old: Subscription, looked: Accepted | Refusal) -> Subscription:
    """Take in that the accepted list, checked again today, holds or does not."""
    assert old.accepted is not None
    if isinstance(looked, Accepted):
        again = replace(looked, accepted_at=old.accepted.accepted_at)
        return replace(old, accepted=again, withdrawn=None)
    return old if looked.rule in PASSING else replace(old, withdrawn=looked)
