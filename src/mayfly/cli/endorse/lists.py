"""``mayfly endorse list``: make lists of images, sign and publish them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin

import click

from mayfly.cli.endorse.group import drafts, endorse, entries, signer_of
from mayfly.cli.endorse.image import described_again
from mayfly.cli.endorse.shown import list_as_json, show_list
from mayfly.cli.image.group import tidy_on_signals
from mayfly.cli.output import Progress, plain, print_json, print_table
from mayfly.config import Paths
from mayfly.errors import Invalid, Missing
from mayfly.images.catalogue import check
from mayfly.images.lists.check import peek_list
from mayfly.images.lists.copies import Copy, plan_copies
from mayfly.images.lists.endorse import (
    UNSIGNED,
    new_list,
    publish,
    sign_list,
    warnings_for,
    with_image,
    without_image,
)
from mayfly.images.lists.entries import read_entry
from mayfly.images.lists.files import write_whole
from mayfly.images.lists.model import ImageList, ListedImage, show_time, suggested_name
from mayfly.images.lists.rules import Refused
from mayfly.images.lists.uris import ANY, check_uri
from mayfly.units import parse_duration
from mayfly.wiring import catalogue_of

HEAD = ("LIST", "VERSION", "IMAGES", "EXPIRES", "TITLE")


@endorse.group("list")
def lists() -> None:
    """Make lists of images, sign and publish them."""


@lists.command(
    "create",
    epilog="""\b
Example:
  mayfly endorse list create site --title "Our images" --uri https://example.org/site.list
""",
)
@click.argument("name")
@click.option("--title", required=True, help="What people call the list.")
@click.option("--uri", required=True, help="Where it will be published.")
@click.option("--description", default="", help="What it is for [default: the title].")
@click.option("--source", default="", help="Who makes it [default: the title].")
def create_list(name: str, title: str, uri: str, description: str, source: str) -> None:
    """Begin a list NAME, without images."""
    made = new_list(title, _uri(uri), source=source, description=description, now=datetime.now(UTC))
    drafts().create(name, made)
    click.echo(f"began list {name}: {made.identifier}")


@lists.command(
    "add",
    epilog="""\b
Examples:
  mayfly endorse list add site el9
  mayfly endorse list add site el9 --uri https://images.example.org/el9-2.1.qcow2
  mayfly endorse list add site --entry el9.json     # what an image endorser has signed

\b
Without --uri the image is expected beside the list, as NAME.qcow2. A newer version
of an image takes the place of the one before.
""",
)
@click.argument("name")
@click.argument("image", required=False)
@click.option("--entry", type=click.Path(path_type=Path), help="The image endorser's entry.")
@click.option("--uri", default="", help="Where the image is fetched.")
@click.option("--version", default="", help="Its version, if no endorser has said one.")
def add_image(name: str, image: str | None, entry: Path | None, uri: str, version: str) -> None:
    """Put IMAGE into list NAME, with its endorser's word if there is one."""
    if (image is None) == (entry is None):
        raise click.UsageError("give IMAGE or --entry, one of them")
    found = read_entry(entry) if entry else _listed(str(image), version)
    with drafts().change(name) as draft:
        placed = _placed(found, draft.images, uri)
        draft.images = with_image(draft.images, placed)
    word = "" if placed.endorsement else ", without a word of its image endorser"
    click.echo(f"added {plain(placed.title)}, version {placed.version}{word}")
    click.echo(f"  fetched from {plain(placed.uri)}")


def _listed(name: str, version: str) -> ListedImage:
    """Give what is said of an image: by its endorser if he meant this very disk."""
    said = entries().find(name)
    try:
        image = catalogue_of(Paths.for_user()).find(name)
    except Missing:
        if said is None:
            raise
        return said
    if said is not None and said.sha512 == image.sha512 and said.endorsement and not version:
        return said
    check(image)
    described = described_again(
        image, title="", version=version, uri="", description="", expires_at=None
    )
    if said is None or said.sha512 != image.sha512:
        # Its identifier stays the same from version to version.
        entries().write(name, described, UNSIGNED)
    return described


def _placed(image: ListedImage, images: ImageList, uri: str) -> ListedImage:
    if uri:
        return replace(image, uri=_uri(uri))
    if not image.uri.startswith("file:"):
        return image
    suffix = image.format or "img"
    return replace(
        image, uri=urljoin(images.uri, quote(f"{suggested_name(image)}.{suffix.lower()}"))
    )


def _uri(uri: str) -> str:
    try:
        return check_uri(uri, ANY)
    except Refused as refused:
        raise Invalid(
            f"--uri {refused.refusal.detail}", hint="write https://HOST/PATH"
        ) from refused


@lists.command("remove")
@click.argument("name")
@click.argument("image")
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove_image(name: str, image: str, yes: bool) -> None:
    """Leave IMAGE out of list NAME from its next version on; nothing is wrong with it."""
    if not yes:
        without_image(drafts().read(name), image)
        if not click.confirm(f"Leave {plain(image)} out of list {name}?"):
            click.get_current_context().exit(1)
    with drafts().change(name) as draft:
        draft.images = without_image(draft.images, image)
    click.echo(f"left {plain(image)} out of list {name}")


@lists.command(
    "sign",
    epilog="""\b
Examples:
  mayfly endorse list sign site
  mayfly endorse list sign site --key grid.key --cert grid.pem --for 14d
  openssl smime -verify -CAfile CA.pem -in site.signed    # anybody can check it
""",
)
@click.argument("name")
@click.option("--key", type=click.Path(path_type=Path), help="Key to sign with.")
@click.option("--cert", type=click.Path(path_type=Path), help="Its certificate.")
@click.option(
    "--password-file", type=click.Path(path_type=Path), help="Has the key's password in a line."
)
@click.option("--for", "lifetime", default="28d", show_default=True, help="How long it holds.")
@click.option("--email", default="", help="Your address, for people who read the list.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the message here as well.")
def sign(name: str, **typed: Any) -> None:
    """Sign list NAME in its next version; it must be signed again before it expires."""
    signer = signer_of(typed["key"], typed["cert"], typed["password_file"])
    lifetime = parse_duration(typed["lifetime"])
    if lifetime < 1:
        raise Invalid(f"--for {typed['lifetime']}: a list must hold for a while")
    progress = Progress()
    with drafts().change(name) as draft:
        ready, message = sign_list(
            _with_email(draft.images, typed["email"]),
            signer,
            lifetime=timedelta(seconds=lifetime),
            now=datetime.now(UTC),
        )
        write_whole(drafts().signed_file(name), message)
        draft.images = ready
    if typed["out"]:
        write_whole(typed["out"].absolute(), message)
    for words in warnings_for(ready):
        progress.warn(f"most sites will refuse {words}")
    click.echo(f"signed {name}, version {ready.version}, until {show_time(ready.expires_at)}")
    click.echo(f"  by {plain(ready.endorser.dn)}")
    click.echo(f"  {typed['out'] or drafts().signed_file(name)}")


def _with_email(images: ImageList, email: str) -> ImageList:
    if not email:
        return images
    if not email.isprintable() or "@" not in email:
        raise Invalid(f"'{email}' is no address", hint="write jo@example.org")
    return replace(images, endorser=replace(images.endorser, email=email))


@lists.command(
    "publish",
    epilog="""\b
Examples:
  mayfly endorse list publish site /var/www/html/site.list
  mayfly endorse list publish site /var/www/html/site.list --with-images

\b
With --with-images each image that the list has beside itself is copied there too,
before the list; what is there already stays. FILE is replaced in one step, and never
by an older version or by another list.
Publish by https: who can change what a site fetches can keep a new list away.
""",
)
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--with-images", is_flag=True, help="Copy the images, too.")
def publish_list(name: str, file: Path, with_images: bool) -> None:
    """Put the signed list NAME where a web server has it."""
    signed = drafts().signed_file(name)
    images = drafts().read(name)
    try:
        message = signed.read_bytes()
    except FileNotFoundError as error:
        raise Missing(
            f"list '{name}' is not signed", hint=f"'mayfly endorse list sign {name}' does it"
        ) from error
    found = peek_list(message, ANY)
    if found != images:
        raise Invalid(
            f"list '{name}' was changed since it was signed",
            hint=f"'mayfly endorse list sign {name}' signs it again",
        )
    place, progress = file.absolute(), Progress()
    copies: tuple[Copy, ...] = ()
    if with_images:
        tidy_on_signals()
        copies, elsewhere = plan_copies(images, place, _disks())
        for image in elsewhere:
            progress.warn(f"not copied: {image.title}, which is fetched from {image.uri}")
    try:
        publish(message, place, copies, lambda title, part: progress(_copying(title, part)))
    finally:
        progress.clear()
    click.echo(f"published {name}, version {images.version}: {file}")
    for copy in copies:
        click.echo(f"  {plain(copy.image.title)}: {plain(str(copy.place))}")


def _copying(title: str, part: float) -> str:
    return f"copy {plain(title)} ({part:.0%})"


def _disks() -> dict[str, Path]:
    """Give the disks that are here, of older versions too, by SHA-512."""
    return {each.sha512: each.disk for each in catalogue_of(Paths.for_user()).versions()}


@lists.command(
    "show",
    epilog="""\b
Examples:
  mayfly endorse list show
  mayfly endorse list show site
  mayfly endorse list show ./theirs.signed      # a file: shown, and not trusted
""",
)
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def show(name: str | None, as_json: bool) -> None:
    """Show your lists, one of them, or a signed list in a file."""
    if name is None:
        _show_all(as_json=as_json)
        return
    path = Path(name)
    images = peek_list(_read(path), ANY) if "/" in name or path.is_file() else drafts().read(name)
    if as_json:
        print_json(list_as_json(images))
    else:
        show_list(images)


def _show_all(*, as_json: bool) -> None:
    known = drafts()
    found = {name: known.read(name) for name in known.names()}
    if as_json:
        print_json({name: list_as_json(images) for name, images in found.items()})
        return
    print_table(HEAD, [_row(name, images) for name, images in found.items()])


def _row(name: str, images: ImageList) -> tuple[str, ...]:
    signed = images.endorser.dn != UNSIGNED.dn
    return (
        name,
        images.version if signed else "not signed",
        str(len(images.images)),
        show_time(images.expires_at) if signed else "",
        plain(images.title),
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Invalid(f"cannot read {path}: {error.strerror}") from error
