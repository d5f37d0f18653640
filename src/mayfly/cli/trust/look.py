"""``mayfly trust show``: who is believed, and why an image is, or is not, trusted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import click

from mayfly.cli.output import plain, print_json
from mayfly.cli.trust.group import store, trust
from mayfly.errors import Missing
from mayfly.images.cosign.keys import RegistryKey
from mayfly.images.lists.admission import Admission, of_several, standing
from mayfly.images.lists.authorities import Anchor
from mayfly.images.lists.model import show_time
from mayfly.images.lists.offers import admissions, trusted_offer
from mayfly.images.lists.store import TrustStore
from mayfly.images.lists.subscriptions import Subscription
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

    IMAGE is a name, identifier or SHA-512, of this host or of a list.
    """
    known, now = store(), datetime.now(UTC)
    if image is not None:
        _show_image(known, image, now, as_json=as_json)
        return
    if as_json:
        print_json(_everything(known, now))
        return
    for line in _lines(known, now):
        click.echo(plain(line))


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


def _show_image(known: TrustStore, image: str, now: datetime, *, as_json: bool) -> None:
    found = of_several([known.admission(each, now) for each in _contents(known, image, now)])
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


def _contents(known: TrustStore, image: str, now: datetime) -> tuple[str, ...]:
    """Give the content that is meant: of the catalogue, or else of a list."""
    if len(image) == 128:
        return (image.lower(),)
    paths, _ = load()
    try:
        return catalogue_of(paths).find(image).contents
    except Missing:
        return (trusted_offer(known, image, now).image.sha512,)
