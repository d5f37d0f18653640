"""``mayfly trust show``: who is believed, and why an image is, or is not, trusted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import click

from mayfly.cli.output import plain, print_json
from mayfly.cli.trust.group import site_store, store, trust
from mayfly.config import Paths
from mayfly.errors import Missing, Untrusted
from mayfly.host.permission import gate_of
from mayfly.images.cosign.keys import RegistryKey
from mayfly.images.lists.admission import Admission, standing
from mayfly.images.lists.authorities import Anchor
from mayfly.images.lists.model import show_time
from mayfly.images.lists.offers import admissions, trusted_offer
from mayfly.images.lists.store import TrustStore
from mayfly.images.lists.subscriptions import Subscription
from mayfly.policy.model import Origin
from mayfly.wiring import catalogue_of, load


@trust.command(
    epilog="""\b
Examples:
  mayfly trust show
  mayfly trust show el9
  mayfly trust show --json
"""
)
@click.argument("image", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def show(image: str | None, as_json: bool) -> None:
    """Show who is believed and which lists are followed; with IMAGE, why it is trusted or not.

    IMAGE is a name, identifier or SHA-512, of this host or of a list. An ordinary user is shown
    the site's, too: for the site's images it alone counts.
    """
    known, now = store(), datetime.now(UTC)
    if image is not None:
        _show_image(image, now, as_json=as_json)
        return
    site = site_store()
    if as_json:
        print_json({**_everything(known, now), "site": _site_as_json(site, now)})
        return
    for line in _lines(known, now):
        click.echo(plain(line))
    if site is not None:
        click.echo("of the site:")
        for line in _site_lines(site, now):
            click.echo(plain(f"  {line}"))


# --- all -----------------------------------------------------------------------------------------


def _lines(known: TrustStore, now: datetime) -> Iterator[str]:
    anchors, lists, blocked = known.anchors().own, known.subscriptions(), known.blocked()
    answers, keys = admissions(lists, blocked=blocked, now=now), known.registry_keys()
    for anchor in anchors:
        yield f"{anchor.kind.value} {anchor.name}: {anchor.certificate.subject.slash}"
        yield f"  {_roles(anchor)}; valid until {show_time(anchor.certificate.not_after)}"
    for each in lists:
        yield from _list_lines(each, answers, now)
    for key in keys:
        yield f"registry key {key.name}: {key.prefix}"
        yield f"  {_until(key, now)}; {key.kind} {key.fingerprint}"
    for sha512, reason in blocked.items():
        yield f"blocked {sha512}"
        yield f"  {reason}"
    if not (anchors or lists or keys or blocked):
        yield "nobody is believed here, and no list is followed"


def _site_lines(site: TrustStore, now: datetime) -> list[str]:
    """Give what an ordinary user may read of it."""
    try:
        return list(_lines(site, now))
    except OSError as error:
        return [f"it cannot be read: {error}"]


def _site_as_json(site: TrustStore | None, now: datetime) -> dict[str, Any] | None:
    if site is None:
        return None
    try:
        return _everything(site, now)
    except OSError as error:
        return {"trouble": str(error)}


def _until(key: RegistryKey, now: datetime) -> str:
    if key.until is None:
        return "until it is removed"
    return f"{'ended at' if key.has_ended(now) else 'until'} {show_time(key.until)}"


def _roles(anchor: Anchor) -> str:
    return ", ".join(sorted(role.value for role in anchor.roles))


def _list_lines(
    each: Subscription, answers: Mapping[str, Admission], now: datetime
) -> Iterator[str]:
    accepted = each.accepted
    title = repr(accepted.title) if accepted else "(never seen)"
    yield f"list {title}: {standing(each, now).value}"
    yield f"  {each.identifier}  {each.url}"
    if accepted:
        yield f"  version {accepted.version}, until {show_time(accepted.until)}"
        yield f"  signed by {accepted.signer.dn}, issued by {accepted.signer.ca}"
    if each.updated_at:
        yield f"  last seen and found good at {show_time(each.updated_at)}"
    if each.withdrawn:
        yield f"  trusted no more: {each.withdrawn}"
    if each.trouble:
        yield f"  trouble since {show_time(each.trouble.since)}: {each.trouble.words}"
    for vouched in accepted.images if accepted else ():
        found = answers[vouched.image.sha512]
        yield f"  {_state(found):<8}  {vouched.image.title} {vouched.image.version}"
        if not found.trusted:
            yield f"            {found.refusals[0]}"
    for fault in accepted.faults if accepted else ():
        yield f"  left out  {fault.title or fault.identifier}"
        yield f"            {fault.refusal}"
    for gone in accepted.revoked if accepted else ():
        yield f"  revoked   {gone.identifier} {gone.version}: {gone.reason}"


def _state(found: Admission) -> str:
    return "trusted" if found.trusted else "refused"


def _everything(known: TrustStore, now: datetime) -> dict[str, Any]:
    lists, blocked = known.subscriptions(), known.blocked()
    answers = admissions(lists, blocked=blocked, now=now)
    return {
        "anchors": [
            {
                "name": each.name,
                "kind": each.kind.value,
                "subject": each.certificate.subject.slash,
                "issuer": each.certificate.issuer.slash,
                "roles": sorted(role.value for role in each.roles),
                "fingerprint": each.certificate.fingerprint,
                "not_after": show_time(each.certificate.not_after),
            }
            for each in known.anchors().own
        ],
        "lists": [_list_as_json(each, answers, now) for each in lists],
        "registries": [
            {
                "name": each.name,
                "prefix": each.prefix,
                "kind": each.kind,
                "fingerprint": each.fingerprint,
                "until": show_time(each.until) if each.until else None,
                "ended": each.has_ended(now),
            }
            for each in known.registry_keys()
        ],
        "blocked": dict(blocked),
    }


def _list_as_json(
    each: Subscription, answers: Mapping[str, Admission], now: datetime
) -> dict[str, Any]:
    accepted = each.accepted
    return {
        "identifier": each.identifier,
        "url": each.url,
        "standing": standing(each, now).value,
        "title": accepted.title if accepted else None,
        "version": accepted.version if accepted else None,
        "until": show_time(accepted.until) if accepted else None,
        "signer": accepted.signer.dn if accepted else None,
        "withdrawn": str(each.withdrawn) if each.withdrawn else None,
        "trouble": each.trouble.words if each.trouble else None,
        "images": [
            {
                "identifier": vouched.image.identifier,
                "title": vouched.image.title,
                "version": vouched.image.version,
                "sha512": vouched.image.sha512,
                **_answer(answers[vouched.image.sha512]),
            }
            for vouched in (accepted.images if accepted else ())
        ],
    }


def _answer(found: Admission) -> dict[str, Any]:
    refusal = None if found.trusted else found.refusals[0]
    return {
        "trusted": found.trusted,
        "rule": refusal.rule.value if refusal else None,
        "why": str(refusal) if refusal else str(found.backing[0]),
    }


# --- one image -----------------------------------------------------------------------------------


def _show_image(image: str, now: datetime, *, as_json: bool) -> None:
    paths, _ = load()
    contents, origin = _contents(paths, image, now)
    found = gate_of(paths).admission_of(contents, now, origin=origin)
    if as_json:
        print_json({"sha512": found.sha512, **_answer(found)})
        return
    click.echo(f"sha512 {found.sha512}")
    click.echo(plain(str(found)))
    for voucher in found.backing[1:]:
        click.echo(plain(f"also: {voucher}"))
    for refusal in found.refusals[0 if found.trusted else 1 :]:
        click.echo(plain(f"but: {refusal}"))
    if not found.trusted:
        click.echo(f"  hint: {found.refusals[0].rule.mend}")


def _contents(paths: Paths, image: str, now: datetime) -> tuple[tuple[str, ...], Origin]:
    """Give the content that is meant, of the catalogue or else of a list, and whose it is."""
    if len(image) == 128:
        return (image.lower(),), Origin.USER
    try:
        found = catalogue_of(paths).find(image)
    except Missing:
        return (_offered(image, now),), Origin.USER
    # A user's own word is good for his own images only.
    of_site = found.disk.is_relative_to(paths.site_images)
    return found.contents, Origin.SITE if of_site else Origin.USER


def _offered(image: str, now: datetime) -> str:
    """Give the SHA-512 of what a list has by this name: a list of the caller's, or of the site."""
    stores = [each for each in (store(), site_store()) if each is not None]
    following = [each for each in stores if each.subscriptions()] or stores[-1:]
    for each in following[:-1]:
        with contextlib.suppress(Untrusted):
            return trusted_offer(each, image, now).image.sha512
    return trusted_offer(following[-1], image, now).image.sha512
