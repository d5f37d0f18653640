"""``mayfly trust subscribe|update|remove``: the lists that are followed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

import click

from mayfly.cli.output import Progress, plain
from mayfly.cli.trust.group import follower, store, trust
from mayfly.errors import Conflict, Missing
from mayfly.images.lists.check import Principal
from mayfly.images.lists.model import show_time
from mayfly.images.lists.store import TrustStore
from mayfly.images.lists.subscriptions import Subscription
from mayfly.images.lists.update import Request
from mayfly.images.lists.update import subscribe as follow

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


@trust.command(
    epilog="""\b
Examples:
  mayfly trust subscribe https://example.org/site.list --endorser "/O=Our site/CN=Jo Doe"
  mayfly trust subscribe https://example.org/vo.list --endorser "/C=DE/O=Grid/CN=Jo Doe" \\
      --endorser-ca "/C=DE/O=Grid/CN=Grid CA" --image-endorser "/C=DE/O=Grid/CN=Al Roe"

\b
The list must keep every rule before it is followed. With --image-endorser, each image
needs the word of one of these as well.
"""
)
@click.argument("url")
@click.option(
    "--endorser", "endorsers", multiple=True, metavar="DN", help="Who may sign it. Repeatable."
)
@click.option("--endorser-ca", default="", metavar="DN", help="Who issued his certificate.")
@click.option(
    "--image-endorser",
    "image_endorsers",
    multiple=True,
    metavar="DN",
    help="Whose word each image needs. Repeatable.",
)
@click.option("--identifier", default="", metavar="UUID", help="Which list it must be.")
def subscribe(
    url: str,
    endorsers: tuple[str, ...],
    endorser_ca: str,
    image_endorsers: tuple[str, ...],
    identifier: str,
) -> None:
    """Follow the list at URL, signed by an endorser who is believed."""
    request = Request(
        url=url,
        endorsers=_principals(endorsers, endorser_ca),
        image_endorsers=_principals(image_endorsers),
        identifier=identifier,
    )
    one = follower()
    progress = Progress()
    progress(f"fetch {plain(url)}")
    try:
        found = follow(one.store, request, one.settings, now=datetime.now(UTC), ask=one.ask)
    finally:
        progress.clear()
    one.announce(datetime.now(UTC))
    accepted = found.accepted
    assert accepted is not None
    click.echo(f"subscribed {plain(accepted.title)}, version {accepted.version}")
    click.echo(f"  identifier  {found.identifier}")
    click.echo(f"  signed by   {plain(accepted.signer.dn)}")
    click.echo(f"  issued by   {plain(accepted.signer.ca)}")
    click.echo(f"  holds until {show_time(accepted.until)}")
    click.echo(f"  images      {len(accepted.images)}")
    for fault in accepted.faults:
        progress.warn(f"left out {fault.title or fault.identifier}: {fault.refusal}")


def _principals(names: Sequence[str], ca: str = "") -> tuple[Principal, ...]:
    return tuple(Principal(dn=name.strip(), ca=ca.strip()) for name in names)


@trust.command(
    epilog="""\b
Examples:
  mayfly trust update
  mayfly trust update "Our images"

\b
The host service does this by itself, every five minutes unless it is set otherwise, and
sees at once what this command has changed. Exit status 1: a list has trouble, or is
trusted no more.
"""
)
@click.argument("list_", metavar="[LIST]", required=False)
def update(list_: str | None) -> None:
    """Ask for all lists, or for one, and say what is new."""
    one = follower()
    only = find_list(one.store, list_).identifier if list_ else ""
    progress = Progress()
    progress("ask for the lists")
    try:
        done = one.update(datetime.now(UTC), only)
    finally:
        progress.clear()
    for each in done:
        words = each.words or f"{_title(each.after)!r} is as it was"
        click.echo(plain(words))
    asked = {each.after.identifier for each in done}
    missed = [each for each in one.store.subscriptions() if each.identifier not in asked]
    bad = any(each.after.trouble or each.after.withdrawn for each in done)
    if bad or (missed and not only):
        click.get_current_context().exit(1)


@trust.command()
@click.argument("what")
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(what: str, yes: bool) -> None:
    """Follow a list no longer, or believe a certificate or key no more: WHAT names one of these."""
    known = store()
    anchors = [each for each in known.anchors().own if each.name == what]
    keys = [each for each in known.registry_keys() if each.name == what]
    lists = _lists_called(known, what)
    if len(anchors) + len(keys) + len(lists) > 1:
        raise Conflict(f"'{what}' names several things", hint="name a list by its identifier")
    if not anchors and not keys and not lists:
        raise Missing(f"nothing here is called '{what}'", hint="'mayfly trust show' lists all")
    kind = "certificate" if anchors else "registry key" if keys else "list"
    if not yes and not click.confirm(f"Trust {kind} {plain(what)} no more?"):
        click.get_current_context().exit(1)
    if anchors:
        known.remove_anchor(what)
        click.echo(f"removed certificate {what}")
        click.echo("  'mayfly trust update' refuses what it has signed, now")
    elif keys:
        known.remove_registry_key(what)
        click.echo(f"removed registry key {what}: it vouches for no image any more")
    else:
        known.remove_subscription(lists[0].identifier)
        click.echo(f"removed list {plain(_title(lists[0]))}: its images are trusted no more")
        follower().announce(datetime.now(UTC))


def find_list(known: TrustStore, what: str) -> Subscription:
    """Give the list that is meant by an identifier or title; raises ``Missing``."""
    found = _lists_called(known, what)
    if len(found) > 1:
        raise Conflict(f"'{what}' names several lists", hint="name it by its identifier")
    if not found:
        there = ", ".join(repr(_title(each)) for each in known.subscriptions()) or "none"
        raise Missing(f"no list '{what}' is subscribed", hint=f"subscribed: {there}")
    return found[0]


def _lists_called(known: TrustStore, what: str) -> list[Subscription]:
    if _UUID.fullmatch(what):
        return [each for each in known.subscriptions() if each.identifier == what.lower()]
    return [each for each in known.subscriptions() if _title(each) == what]


def _title(subscription: Subscription) -> str:
    return subscription.accepted.title if subscription.accepted else subscription.identifier
