"""Who vouches for each image of a checked list, where the site wants the image endorser's word too.

That a signature fits is found out once and remembered; whether its signer can still be trusted is
asked at each update, once for each signer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from mayfly.images.lists.authorities import Anchors, Role
from mayfly.images.lists.check import (
    SAME_IN_BOTH,
    CheckRules,
    Endorsed,
    Principal,
    Verified,
    open_endorsement,
)
from mayfly.images.lists.model import ListedImage, show_time
from mayfly.images.lists.openssl import Certificate, certificate
from mayfly.images.lists.rules import Refusal, Refused, Rule
from mayfly.images.lists.signers import check_signer
from mayfly.images.lists.subscriptions import Subscription, Vouched, Vouching


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What a site trusts and asks for, today."""

    anchors: Anchors
    rules: CheckRules
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class _Signers:
    """What was found out about the certificates of image endorsers, in this update."""

    site: Site
    found: dict[str, Refusal | None] = field(default_factory=dict)
    pems: dict[str, str] = field(default_factory=dict)

    def check(self, signer: Certificate) -> None:
        """Refuse a signer who is not trusted."""
        if signer.fingerprint not in self.found:
            self.found[signer.fingerprint] = self._ask(signer)
        if refusal := self.found[signer.fingerprint]:
            raise Refused(refusal.rule, refusal.detail)
        self.pems[signer.fingerprint] = signer.pem.decode("ascii")

    def _ask(self, signer: Certificate) -> Refusal | None:
        site = self.site
        try:
            check_signer(signer, Role.IMAGE, site.anchors, site.rules.signer, site.now)
        except Refused as refused:
            return refused.refusal
        return None


def vouch_for(verified: Verified, subscription: Subscription, site: Site) -> Vouching:
    """Say of each image of a checked list who vouches for it, and until when."""
    signers = _Signers(site=site)
    before = _before(subscription)
    images = tuple(
        _vouch(image, verified, subscription, signers, before) for image in verified.images.images
    )
    return Vouching(images=images, certificates=tuple(signers.pems.values()))


def _before(subscription: Subscription) -> Mapping[str, tuple[Vouched, Certificate]]:
    """Give the endorsements that were found signed before, by their SHA-512."""
    accepted = subscription.accepted
    if accepted is None:
        return {}
    found = [certificate(pem.encode()) for pem in accepted.certificates]
    signers = {each.fingerprint: each for each in found}
    return {
        each.endorsement_sha512: (each, signers[each.fingerprint])
        for each in accepted.images
        if each.endorsement_sha512 and each.fingerprint in signers
    }


def _vouch(
    image: ListedImage,
    verified: Verified,
    subscription: Subscription,
    signers: _Signers,
    before: Mapping[str, tuple[Vouched, Certificate]],
) -> Vouched:
    until = min(verified.until, image.expires_at or verified.until)
    bare = replace(image, endorsement="")
    if not subscription.image_endorsers:
        return Vouched(image=bare, until=until)
    digest = hashlib.sha512(image.endorsement.encode()).hexdigest()
    try:
        endorsed = _remembered(image, digest, subscription, before) or open_endorsement(
            image, subscription.image_endorsers, signers.site.rules
        )
        signers.check(endorsed.signer)
        _check_lasting(endorsed, signers.site.now)
    except Refused as refused:
        detail = f"{image.title!r} ({image.identifier}): {refused.refusal}"
        return Vouched(
            image=bare, until=until, refusal=Refusal(rule=Rule.ENDORSEMENT, detail=detail)
        )
    return Vouched(
        image=bare,
        until=min(until, endorsed.until),
        by=Principal(dn=endorsed.signer.subject.slash, ca=endorsed.signer.issuer.slash),
        endorsement_sha512=digest,
        signed_until=endorsed.until,
        fingerprint=endorsed.signer.fingerprint,
    )


def _remembered(
    image: ListedImage,
    digest: str,
    subscription: Subscription,
    before: Mapping[str, tuple[Vouched, Certificate]],
) -> Endorsed | None:
    """Give an endorsement that was found signed before, for the same image, by one still asked."""
    known = before.get(digest)
    if known is None:
        return None
    vouched, signer = known
    same = all(getattr(image, name) == getattr(vouched.image, name) for name in SAME_IN_BOTH)
    dn, ca = signer.subject.slash, signer.issuer.slash
    asked = any(each.is_meant(dn, ca) for each in subscription.image_endorsers)
    if not same or not asked or vouched.signed_until is None:
        return None
    return Endorsed(signer=signer, until=vouched.signed_until)


def _check_lasting(endorsed: Endorsed, now: datetime) -> None:
    if endorsed.until < now:
        raise Refused(Rule.IMAGE_EXPIRED, f"the endorsement ended at {show_time(endorsed.until)}")
