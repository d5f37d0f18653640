"""``mayfly image pull``: fetch an image, from a list, the web, a directory or a registry."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime

import click

from mayfly.cli.image.group import Steps, explaining, image, own_catalogue, tidy_on_signals
from mayfly.config import Paths, Settings
from mayfly.errors import Untrusted
from mayfly.images.catalogue import Existing
from mayfly.images.catalogue.keeping import make_room
from mayfly.images.chunks.assemble import chunk_downloads
from mayfly.images.chunks.pulling import Chunking, find_index, pull_chunks
from mayfly.images.cosign.book import SignatureBook
from mayfly.images.cosign.keys import Signed
from mayfly.images.lists.authorities import Anchors
from mayfly.images.lists.following import follower_for, trust_settings
from mayfly.images.lists.offers import Offer, trusted_offer
from mayfly.images.lists.store import TrustStore
from mayfly.images.pull import Pull, Puller, of_offer, of_registry, of_url
from mayfly.images.registry import Access, Registry, parse_reference
from mayfly.images.registry.reference import SCHEME
from mayfly.images.transfer.digest import Digest, parse_sha512
from mayfly.images.transfer.part import Downloads
from mayfly.images.transfer.whole import Terms
from mayfly.model import Image
from mayfly.units import parse_size
from mayfly.wiring import image_users, load

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
LIMIT = "64G"


@image.command(
    "pull",
    epilog="""\b
Examples:
  mayfly image pull el9
  mayfly image pull el9 --from /mnt/images
  mayfly image pull https://images.example.org/el9.qcow2 --sha512 0b6f…
  mayfly image pull docker://registry.example.org/site/el9:2026

\b
WHAT is a name, identifier or SHA-512 of an image in a list that is subscribed, a URL
(https, http, file), or a reference to a registry. What was interrupted goes on where it
stopped when the same is pulled again; parts that nobody wants are removed after a week.
""",
)
@click.argument("what")
@click.option("--name", help="Name of the image; else that of the list, or the last part of WHAT.")
@click.option("--sha512", help="What the file must have, from a source that you trust.")
@click.option("--from", "place", metavar="DIR|URL", help="Fetch it there, not where the list says.")
@click.option("--limit", default=LIMIT, show_default=True, help="Largest file that is fetched.")
@click.option("--os", "os_name", help="What is on the disk.")
@click.option("--whole", is_flag=True, help="Fetch the whole file, also where there are chunks.")
@click.option("--force", is_flag=True, help="Replace an image of the same name.")
@click.option("--new-version", is_flag=True, help="Keep the one of the same name beside this one.")
@explaining
def pull_image(
    what: str,
    name: str | None,
    sha512: str | None,
    place: str | None,
    limit: str,
    os_name: str | None,
    whole: bool,
    force: bool,
    new_version: bool,
) -> None:
    """Fetch an image that somebody vouches for."""
    existing = existing_of(force=force, new_version=new_version)
    tidy_on_signals()
    paths, settings = load()
    steps = Steps(name or what)
    digest = parse_sha512(sha512) if sha512 else None
    chunking: Chunking | None = None
    signed: Signed | None = None
    _check_options(what, digest, place)
    if what.startswith(SCHEME):
        registry = Registry(parse_reference(what), access_of(settings))
        signed = book_of(paths).check(registry)
        pull = of_registry(registry, name=name or "", digest=digest)
    elif is_url(what):
        pull = of_url(what, name=name or "", digest=digest, most_bytes=parse_size(limit))
    else:
        offer = find_offer(paths, what)
        steps.note(str(offer.voucher))
        rules = trust_settings(settings).uris
        pull = of_offer(offer, name=name or "", place=place or "", rules=rules)
        chunking = None if whole else chunking_for(paths, settings, steps, offer)
    pull = _named(pull, os_name)
    made = _pull(puller_for(paths, settings, steps, existing), pull, chunking)
    book_of(paths).note(made, signed)
    steps.done(made, "pulled")
    follower_for(settings, paths.trust, own_catalogue()).announce(datetime.now(UTC))


def _check_options(what: str, digest: Digest | None, place: str | None) -> None:
    if not is_url(what):
        if digest:
            raise click.UsageError("--sha512 is for a URL: a list says itself what an image has")
        return
    if place:
        raise click.UsageError("--from is for an image of a list")
    if digest is None and not what.startswith(SCHEME):
        raise click.UsageError(
            "nothing vouches for a URL: give --sha512, or see 'mayfly image import'"
        )


def _pull(puller: Puller, pull: Pull, chunking: Chunking | None) -> Image:
    """Pull an image in chunks where that can be, else as a whole."""
    if chunking is not None and puller.find_here(pull) is None:
        index = find_index(pull.source, chunking, datetime.now(UTC))
        if index is not None:
            return pull_chunks(puller, pull, index, chunking)
    return puller.pull(pull)


def chunking_for(paths: Paths, settings: Settings, steps: Steps, offer: Offer) -> Chunking:
    """Give whom an index is believed, and who else is asked for chunks."""
    trust = trust_settings(settings)
    stores = [TrustStore(directory=each) for each in dict.fromkeys((paths.trust, paths.site_trust))]
    own = tuple(anchor for store in stores for anchor in store.anchors().own)
    return Chunking(
        voucher=offer.voucher,
        anchors=Anchors(own=own, grids=trust.grids),
        rules=trust.rules().signer,
        neighbours=settings.neighbours,
        downloads=chunk_downloads(paths.cache),
        note=steps.note,
    )


def find_offer(paths: Paths, wanted: str) -> Offer:
    """Give what the user's own lists offer, or else those of the site."""
    now = datetime.now(UTC)
    stores = [TrustStore(directory=each) for each in dict.fromkeys((paths.trust, paths.site_trust))]
    for store in stores[:-1]:
        try:
            return trusted_offer(store, wanted, now)
        except Untrusted:
            continue  # the site's lists may have it
    return trusted_offer(stores[-1], wanted, now)


def _named(pull: Pull, os_name: str | None) -> Pull:
    return replace(pull, origin=replace(pull.origin, os=os_name)) if os_name else pull


def import_url(
    url: str, steps: Steps, *, name: str, os_name: str, sha512: str | None, existing: Existing
) -> Image:
    """Fetch a file and import it, also one that nobody vouches for."""
    digest = parse_sha512(sha512) if sha512 else None
    if digest is None:
        steps.note(f"nothing vouches for {url}: give --sha512 to have it checked")
    paths, settings = load()
    pull = _named(of_url(url, name=name, digest=digest), os_name)
    made = puller_for(paths, settings, steps, existing).pull(pull)
    if digest is None:
        steps.note(f"its sha512 was {made.endorsed_sha512}")
    return made


def existing_of(*, force: bool, new_version: bool) -> Existing:
    """Give what becomes of an image of the same name."""
    if force and new_version:
        raise click.UsageError("--force and --new-version exclude each other")
    return Existing.REPLACE if force else Existing.KEEP if new_version else Existing.REFUSE


def is_url(text: str) -> bool:
    """Tell a URL from a name or a file."""
    return bool(_URL.match(text))


def puller_for(paths: Paths, settings: Settings, steps: Steps, existing: Existing) -> Puller:
    """Give what brings images to the calling user, within the quota."""

    def room(wanted_bytes: int) -> None:
        if not settings.image_quota:
            return
        quota = parse_size(settings.image_quota)
        users = image_users(paths)
        for gone in make_room(own_catalogue(), users, quota_bytes=quota, wanted_bytes=wanted_bytes):
            steps.note(f"removed {gone.name}, the least recently used, for room")

    return Puller(
        make_room=room,
        catalogue=own_catalogue(),
        downloads=Downloads(directory=paths.cache / "downloads"),
        terms=Terms(watch=steps.watch),
        report=steps,
        existing=existing,
    )


def book_of(paths: Paths) -> SignatureBook:
    """Give which images of registries must be signed for the calling user."""
    places = dict.fromkeys((paths.trust, paths.site_trust))
    return SignatureBook(stores=[TrustStore(directory=each) for each in places])


def access_of(settings: Settings) -> Access:
    """Give how registries are asked."""
    return Access(plain=settings.plain_registries)
