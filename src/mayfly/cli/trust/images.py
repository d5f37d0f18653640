"""``mayfly trust block|unblock``: the admin's own word about an image, above all lists."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import click

from mayfly.cli.output import plain
from mayfly.cli.trust.group import follower, trust
from mayfly.errors import Invalid, Missing
from mayfly.wiring import catalogue_of, load

_SHA512 = re.compile(r"[0-9a-f]{128}", re.IGNORECASE)


@trust.command(
    epilog="""\b
Examples:
  mayfly trust block el9 --reason "see ticket 4711"
  mayfly trust block 3c9909af… --reason "a root kit"      # all 128 digits
"""
)
@click.argument("image")
@click.option("--reason", required=True, help="Told to whom it concerns.")
def block(image: str, reason: str) -> None:
    """Refuse IMAGE, a name or SHA-512, from now on, whoever vouches for it."""
    if not reason.strip() or not reason.isprintable():
        raise Invalid("an image is blocked for a reason", hint="give --reason in one line")
    one = follower()
    for sha512 in _contents(image):
        one.store.block(sha512, reason.strip())
        click.echo(f"blocked {sha512}")
    one.announce(datetime.now(UTC))


@trust.command()
@click.argument("image")
def unblock(image: str) -> None:
    """Leave IMAGE, a name or SHA-512, to the lists again."""
    one = follower()
    blocked = one.store.blocked()
    found = [sha512 for sha512 in _contents(image) if sha512 in blocked]
    if not found:
        raise Missing(f"{plain(image)[:140]} is not blocked", hint="'mayfly trust show' lists all")
    for sha512 in found:
        one.store.unblock(sha512)
        click.echo(f"unblocked {sha512}")
    one.announce(datetime.now(UTC))


def _contents(image: str) -> list[str]:
    """Give what is meant: the disk, and the file that it was made of."""
    paths, _ = load()
    if not _SHA512.fullmatch(image):
        found = catalogue_of(paths).find(image)
        return list(found.contents)
    wanted = image.lower()
    for each in catalogue_of(paths).list():
        if wanted in each.contents:
            return list(each.contents)
    return [wanted]
