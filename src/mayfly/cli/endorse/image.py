"""``mayfly endorse image|revoke``: say that an image is good, or that it is so no more."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from mayfly.cli.endorse.group import drafts, endorse, entries, signer_of
from mayfly.cli.output import Progress, plain
from mayfly.config import Paths
from mayfly.errors import Missing
from mayfly.images.catalogue import check
from mayfly.images.lists.endorse import (
    Wording,
    check_disk,
    describe_image,
    endorse_image,
    named_endorser,
    revoke_image,
)
from mayfly.images.lists.files import write_whole
from mayfly.images.lists.model import ListedImage
from mayfly.images.lists.openssl import Signer, read_certificate
from mayfly.images.lists.writer import render_image
from mayfly.model import Image
from mayfly.wiring import catalogue_of


@endorse.command(
    "image",
    epilog="""\b
Examples:
  mayfly endorse image el9
  mayfly endorse image el9 --key grid.key --cert grid.pem --password-file secret
  mayfly endorse image el9 --version 2.1 --uri https://example.org/el9.qcow2
  mayfly endorse image el9 --out el9.json     # for the endorser of a list
""",
)
@click.argument("name")
@click.option("--key", type=click.Path(path_type=Path), help="Key to sign with.")
@click.option("--cert", type=click.Path(path_type=Path), help="Its certificate.")
@click.option(
    "--password-file", type=click.Path(path_type=Path), help="Has the key's password in a line."
)
@click.option("--uri", default="", help="Where the image is fetched; a list may say it later.")
@click.option("--title", default="", help="What it is called [default: its name].")
@click.option("--version", default="", help="Its version [default: the one it has here].")
@click.option("--description", default="", help="What it is for.")
@click.option("--expires", type=click.DateTime(["%Y-%m-%d"]), help="Last day of it, UTC.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the entry here as well.")
def endorse_one(name: str, **typed: Any) -> None:
    """Sign for image NAME of this host: its disk is hashed, and is what is vouched for."""
    signer = signer_of(typed["key"], typed["cert"], typed["password_file"])
    image = catalogue_of(Paths.for_user()).find(name)
    check(image)
    described = described_again(image, **_wording(typed))
    _hash(described, image)
    who = named_endorser(read_certificate(signer.certificate))
    endorsed = endorse_image(described, signer, now=datetime.now(UTC))
    entries().write(name, endorsed, who)
    if typed["out"]:
        write_whole(typed["out"].absolute(), render_image(endorsed, who))
    _show(endorsed, signer)


def _wording(typed: dict[str, Any]) -> dict[str, Any]:
    expires = typed["expires"]
    return {
        "title": typed["title"],
        "version": typed["version"],
        "uri": typed["uri"],
        "description": typed["description"],
        "expires_at": expires.replace(hour=23, minute=59, second=59, tzinfo=UTC)
        if expires
        else None,
    }


def described_again(image: Image, **said: Any) -> ListedImage:
    """Describe an image with what is said now, and else with what was said of it before."""
    before = entries().find(image.name)
    title = said["title"] or (before.title if before else image.name)
    known = before.uri if before and before.sha512 == image.sha512 else ""
    wording = Wording(
        title=title,
        uri=said["uri"] or known or image.disk.absolute().as_uri(),
        version=said["version"],
        description=said["description"] or (before.description if before else title),
        expires_at=said["expires_at"],
    )
    return describe_image(image, wording, before.identifier if before else "")


def _hash(described: ListedImage, image: Image) -> None:
    progress = Progress()
    progress(f"{image.name}: hash the disk")
    try:
        check_disk(described, image.disk)
    finally:
        progress.clear()


def _show(endorsed: ListedImage, signer: Signer) -> None:
    owner = read_certificate(signer.certificate)
    click.echo(f"endorsed {plain(endorsed.title)}, version {endorsed.version}")
    click.echo(f"  by      {plain(owner.subject.slash)}")
    click.echo(f"  as      {endorsed.identifier}")
    click.echo(f"  sha512  {endorsed.sha512}")


@endorse.command(
    epilog="""\b
Examples:
  mayfly endorse revoke el9 --reason "CVE-2026-1234"
  mayfly endorse revoke el9 --list site --reason "built by mistake"

\b
NAME is a title, an identifier or a SHA-512. Sites hear of it when the lists are
signed and published again.
"""
)
@click.argument("name")
@click.option("--reason", required=True, help="Told to every site.")
@click.option("--list", "only", metavar="LIST", help="Take it back from this list alone.")
def revoke(name: str, reason: str, only: str | None) -> None:
    """Take image NAME back from every list of yours that has it."""
    known = drafts()
    changed = []
    for each in [only] if only else known.names():
        try:
            with known.change(each) as draft:
                draft.images = revoke_image(draft.images, name, reason, now=datetime.now(UTC))
            changed.append(each)
        except Missing:
            if only:
                raise
    if not changed:
        there = ", ".join(known.names()) or "none"
        raise Missing(f"no list of yours has an image '{name}'", hint=f"your lists: {there}")
    for each in changed:
        click.echo(f"took {plain(name)} back from list {each}")
        click.echo(
            f"  now: mayfly endorse list sign {each}; mayfly endorse list publish {each} FILE"
        )
