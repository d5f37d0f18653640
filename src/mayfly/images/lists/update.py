"""Subscribe lists, and keep those that are subscribed up to date.

Lists are fetched and checked without holding anything up; only the writing is done by one process
at a time, and begins anew when another one was faster.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mayfly.errors import Conflict, Invalid, MayflyError, Missing, Unavailable, Untrusted
from mayfly.images.lists.authorities import GRID_DIRECTORY
from mayfly.images.lists.check import CheckRules, Expected, Principal, check_list, verify_list
from mayfly.images.lists.fetch import check_url, fetch
from mayfly.images.lists.names import check_dn
from mayfly.images.lists.rules import Refusal, Rule
from mayfly.images.lists.signers import SignerRules
from mayfly.images.lists.store import TrustStore
from mayfly.images.lists.subscriptions import (
    Accepted,
    Subscription,
    accept,
    after_failure,
    after_refusal,
    after_second_look,
    after_success,
)
from mayfly.images.lists.uris import STRICT, UriRules
from mayfly.images.lists.vouching import Site, vouch_for

log = logging.getLogger("mayfly.images.lists")

Fetch = Callable[[str], bytes]
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustSettings:
    """What a site may set."""

    sha1: bool = False
    """Whether signatures by SHA-1 count: for old lists that nobody signs anew."""
    uris: UriRules = STRICT
    grids: tuple[Path, ...] = (GRID_DIRECTORY,)

    def rules(self) -> CheckRules:
        """Give the rules for checking lists."""
        return CheckRules(signer=SignerRules(sha1=self.sha1), uris=self.uris)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A list that the site's admin wants to follow."""

    url: str
    endorsers: tuple[Principal, ...]
    image_endorsers: tuple[Principal, ...] = ()
    identifier: str = ""
    """Empty: that of the list that is there now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Updated:
    """What an update did to one list."""

    before: Subscription
    after: Subscription

    @property
    def changed(self) -> bool:
        """Tell whether the images may be others than before."""
        old, new = self.before.accepted, self.after.accepted
        return (
            self.before.withdrawn != self.after.withdrawn
            or (old.message_sha512 if old else "") != (new.message_sha512 if new else "")
            or (old.images if old else ()) != (new.images if new else ())
        )

    @property
    def words(self) -> str:
        """Say what is to be known of it; empty when all is as before, and well."""
        after, now = self.after, self.after.accepted
        title = repr(now.title) if now else after.identifier
        if after.withdrawn:
            return f"{title} is trusted no more: {after.withdrawn}"
        if after.trouble:
            return f"{title} was not taken over: {after.trouble.words}"
        if self.changed and now:
            return f"{title} is version {now.version} now, with {len(now.images)} images"
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Offer:
    """What came of asking for a list."""

    message: bytes | None
    words: str = ""


def subscribe(
    store: TrustStore,
    request: Request,
    settings: TrustSettings,
    *,
    now: datetime,
    ask: Fetch = fetch,
) -> Subscription:
    """Follow a list: it is fetched and must keep every rule before it is written down.

    Raises ``Untrusted``, naming the rule, ``Unavailable`` when it cannot be fetched, and
    ``Conflict`` when it is subscribed already.
    """
    _check_request(request)
    now = _whole(now)
    message = ask(check_url(request.url, settings.uris))
    site = Site(anchors=store.anchors(settings.grids), rules=settings.rules(), now=now)
    expected = Expected(endorsers=request.endorsers, identifier=request.identifier)
    verified = verify_list(message, site.anchors, expected, site.rules, now)
    new = Subscription(
        identifier=verified.images.identifier,
        url=request.url,
        endorsers=request.endorsers,
        image_endorsers=request.image_endorsers,
        added_at=now,
    )
    accepted = accept(verified, vouch_for(verified, new, site), message, now=now)
    subscription = after_success(new, accepted, now=now)
    with store.changing():
        if _is_there(store, subscription.identifier):
            raise Conflict(
                f"the list {subscription.identifier} is subscribed already",
                hint="remove it first to subscribe it anew",
            )
        store.save(subscription, message)
    return subscription


def _check_request(request: Request) -> None:
    if not request.endorsers:
        raise Invalid(
            "nobody is named who may sign the list", hint="give --endorser with a certificate's DN"
        )
    for each in (*request.endorsers, *request.image_endorsers):
        check_dn(each.dn)
        if each.ca:
            check_dn(each.ca)


def _is_there(store: TrustStore, identifier: str) -> bool:
    try:
        store.subscription(identifier)
    except Missing:
        return False
    return True


def update_all(
    store: TrustStore, settings: TrustSettings, *, now: datetime, ask: Fetch = fetch
) -> list[Updated]:
    """Ask for every list that is subscribed; what is wrong with one keeps no other waiting."""
    done = []
    for subscription in store.subscriptions():
        try:
            done.append(update(store, subscription.identifier, settings, now=now, ask=ask))
        except Missing:
            continue  # it was removed meanwhile
        except MayflyError as error:
            log.warning("list %s was not updated: %s", subscription.identifier, error.message)
    return done


def update(
    store: TrustStore,
    identifier: str,
    settings: TrustSettings,
    *,
    now: datetime,
    ask: Fetch = fetch,
) -> Updated:
    """Ask for one list, and take it over if it keeps every rule."""
    before = store.subscription(identifier)
    offer = _ask(before, ask)
    for _ in range(_ATTEMPTS):
        site = Site(anchors=store.anchors(settings.grids), rules=settings.rules(), now=_whole(now))
        after, message = _step(before, offer, store.message(before), site)
        with store.changing():
            current = store.subscription(identifier)
            if current == before:
                store.save(after, message)
                return Updated(before=before, after=after)
        if current.accepted != before.accepted:
            # Another one was faster: what was fetched here may be older than what it has.
            return Updated(before=before, after=current)
        before = current
    raise Unavailable(
        f"the list {identifier} is updated by others all the time", hint="try again soon"
    )


def _whole(now: datetime) -> datetime:
    """Give a time as it is on disk: in whole seconds."""
    return now.replace(microsecond=0)


def _ask(subscription: Subscription, ask: Fetch) -> _Offer:
    try:
        return _Offer(message=ask(subscription.url))
    except (Unavailable, Untrusted) as error:
        return _Offer(message=None, words=error.message)


def _step(
    before: Subscription, offer: _Offer, kept: bytes | None, site: Site
) -> tuple[Subscription, bytes | None]:
    """Give what becomes of a subscription, and the message to be kept if it is another one."""
    if offer.message is not None:
        found = _accepted(offer.message, before, site)
        if isinstance(found, Accepted):
            return after_success(before, found, now=site.now), offer.message
        after = after_refusal(before, found, now=site.now)
    else:
        after = after_failure(before, offer.words, now=site.now)
    if after.accepted is None or site.now > after.accepted.until:
        return after, None
    # A revoked endorser, or one that the admin removed, must not go on because nothing new came.
    return after_second_look(after, _looked(kept, after, site)), None


def _looked(kept: bytes | None, subscription: Subscription, site: Site) -> Accepted | Refusal:
    if kept is None:
        return Refusal(rule=Rule.SIGNED, detail="the signed message that was kept is gone")
    return _accepted(kept, subscription, site)


def _accepted(message: bytes, subscription: Subscription, site: Site) -> Accepted | Refusal:
    found = check_list(message, site.anchors, subscription.expected(), site.rules, site.now)
    if isinstance(found, Refusal):
        return found
    return accept(found, vouch_for(found, subscription, site), message, now=site.now)
