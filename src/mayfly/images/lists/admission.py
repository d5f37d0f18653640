"""Whether an image may be used now, who vouches for it, and if nobody does, why: pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from mayfly.errors import Untrusted
from mayfly.images.cosign.keys import KeyVoucher, RegistryKey, Signed, answer
from mayfly.images.lists.check import Principal
from mayfly.images.lists.model import ListedImage, show_time
from mayfly.images.lists.rules import Refusal, Rule
from mayfly.images.lists.subscriptions import Accepted, Subscription

_NEVER = datetime.max.replace(tzinfo=UTC)


class Standing(StrEnum):
    """How a subscribed list stands now."""

    TRUSTED = "trusted"
    NEVER_SEEN = "never-seen"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"
    """It was accepted, and is refused now: its signer was revoked, say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Voucher:
    """A list that has the image, and holds."""

    identifier: str
    title: str
    version: str
    endorser: Principal
    """Who signed the list."""
    image_endorser: Principal | None
    """Who made the image, where the site asked for that word."""
    image: ListedImage
    until: datetime

    def __str__(self) -> str:
        by = f", made by {self.image_endorser.dn}" if self.image_endorser else ""
        return (
            f"list {self.title!r} ({self.identifier}), version {self.version}, "
            f"endorsed by {self.endorser.dn}{by}, until {show_time(self.until)}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What holds for one image now."""

    sha512: str
    vouchers: tuple[Voucher, ...]
    """The one that holds longest comes first."""
    refusals: tuple[Refusal, ...]
    """Why not, for each list that knows it; a blocked image has only that."""
    keys: tuple[KeyVoucher, ...] = ()
    """Keys of registries that have signed what it was made of."""

    @property
    def trusted(self) -> bool:
        """Tell whether the image may be used."""
        return bool(self.backing)

    @property
    def backing(self) -> tuple[Voucher | KeyVoucher, ...]:
        """Give all that vouch for it, the lists first."""
        return (*self.vouchers, *self.keys)

    @property
    def until(self) -> datetime | None:
        """Give the time until which somebody vouches for it, as things stand; None: no end."""
        latest = max((each.until or _NEVER for each in self.backing), default=_NEVER)
        return None if latest == _NEVER else latest

    def __str__(self) -> str:
        if self.backing:
            return f"trusted: {self.backing[0]}"
        return f"refused: {self.refusals[0]}"

    def error(self, name: str) -> Untrusted:
        """Give the error that refuses the image."""
        return self.refusals[0].error(f"image '{name}'")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signatures:
    """Signatures that were seen when an image came in, and the keys that are believed now."""

    seen: tuple[Signed, ...] = ()
    keys: tuple[RegistryKey, ...] = ()


_UNSIGNED = Signatures()


def admission(
    sha512: str,
    subscriptions: Iterable[Subscription],
    *,
    blocked: Mapping[str, str],
    now: datetime,
    signed: Signatures = _UNSIGNED,
) -> Admission:
    """Say whether an image may be used now.

    One list that has it is enough, or one key of its registry; what a list takes back binds only
    that list. ``blocked`` is the site admin's own word, SHA-512 to reason, and comes before all.
    """
    wanted = sha512.lower()
    if wanted in blocked:
        reason = f"this site has blocked it: {blocked[wanted] or 'no reason was given'}"
        return _none(wanted, [Refusal(rule=Rule.BLOCKED, detail=reason)])
    answers = [
        *(_answer(wanted, each, now) for each in subscriptions),
        *(answer(each, signed.keys, now) for each in signed.seen),
    ]
    vouchers = [each for each in answers if isinstance(each, Voucher)]
    keys = tuple(each for each in answers if isinstance(each, KeyVoucher))
    refusals = [each for each in answers if isinstance(each, Refusal)]
    if not vouchers and not keys and not refusals:
        return _none(wanted, [Refusal(rule=Rule.UNENDORSED, detail="no subscribed list has it")])
    return Admission(
        sha512=wanted,
        vouchers=tuple(sorted(vouchers, key=lambda each: each.until, reverse=True)),
        refusals=tuple(refusals),
        keys=keys,
    )


def of_several(admissions: Iterable[Admission]) -> Admission:
    """Say what holds for an image that a list may have as its disk, or as what that was made of.

    One that is blocked is refused whatever the other is; else it is enough that one is trusted.
    """

    def weight(found: Admission) -> int:
        if found.trusted:
            return 1
        rules = {refusal.rule for refusal in found.refusals}
        return 0 if Rule.BLOCKED in rules else 3 if rules == {Rule.UNENDORSED} else 2

    return min(admissions, key=weight)


def _none(sha512: str, refusals: list[Refusal]) -> Admission:
    return Admission(sha512=sha512, vouchers=(), refusals=tuple(refusals))


def standing(subscription: Subscription, now: datetime) -> Standing:
    """Say how a list stands now."""
    accepted = subscription.accepted
    if accepted is None:
        return Standing.NEVER_SEEN
    if subscription.withdrawn is not None:
        return Standing.WITHDRAWN
    return Standing.EXPIRED if now > accepted.until else Standing.TRUSTED


def _answer(sha512: str, subscription: Subscription, now: datetime) -> Voucher | Refusal | None:
    """Give what one list says of an image; None when it never had it."""
    accepted = subscription.accepted
    if accepted is None:
        return None
    found = [each for each in accepted.images if each.image.sha512 == sha512]
    refusal = _taken_back(sha512, accepted)
    if not found:
        return refusal or _removed(sha512, subscription, accepted)
    if refusal := refusal or _list_refusal(subscription, accepted, now):
        return refusal
    # The same file may be in a list under several names.
    held = max(found, key=lambda each: (each.refusal is None, each.until))
    if held.refusal is not None:
        return held.refusal
    if now > held.until:
        return Refusal(
            rule=Rule.IMAGE_EXPIRED,
            detail=f"{held.image.title!r} of {_named(accepted)} expired at {show_time(held.until)}",
        )
    return Voucher(
        identifier=subscription.identifier,
        title=accepted.title,
        version=accepted.version,
        endorser=accepted.signer,
        image_endorser=held.by,
        image=held.image,
        until=held.until,
    )


def _named(accepted: Accepted) -> str:
    return f"the list {accepted.title!r}, version {accepted.version}"


def _list_refusal(subscription: Subscription, accepted: Accepted, now: datetime) -> Refusal | None:
    match standing(subscription, now):
        case Standing.EXPIRED:
            detail = f"{_named(accepted)} expired at {show_time(accepted.until)}"
            return Refusal(rule=Rule.EXPIRED, detail=detail)
        case Standing.WITHDRAWN:
            assert subscription.withdrawn is not None
            detail = f"{_named(accepted)}: {subscription.withdrawn.detail}"
            return Refusal(rule=subscription.withdrawn.rule, detail=detail)
        case Standing.TRUSTED | Standing.NEVER_SEEN:
            return None


def _taken_back(sha512: str, accepted: Accepted) -> Refusal | None:
    for revoked in accepted.revoked:
        if revoked.sha512 == sha512:
            when = show_time(revoked.revoked_at)
            detail = f"{_named(accepted)} took it back at {when}: {revoked.reason}"
            return Refusal(rule=Rule.IMAGE_REVOKED, detail=detail)
    return None


def _removed(sha512: str, subscription: Subscription, accepted: Accepted) -> Refusal | None:
    for former in subscription.former:
        if former.sha512 == sha512:
            detail = (
                f"{_named(accepted)} has {former.title!r}, version {former.version}, no more; "
                f"seen at {show_time(former.gone_at)}"
            )
            return Refusal(rule=Rule.IMAGE_REMOVED, detail=detail)
    return None


def no_longer_trusted(
    running: Iterable[str],
    subscriptions: Iterable[Subscription],
    *,
    blocked: Mapping[str, str],
    now: datetime,
) -> Iterator[tuple[str, Refusal]]:
    """Give the images, of those that machines run, that may be used no more, and why."""
    lists = tuple(subscriptions)
    for sha512 in running:
        found = admission(sha512, lists, blocked=blocked, now=now)
        if not found.trusted:
            yield sha512, found.refusals[0]
