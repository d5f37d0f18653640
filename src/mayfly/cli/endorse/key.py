"""``mayfly endorse key``: a key of one's own, where there is no certificate of a grid."""

from __future__ import annotations

from pathlib import Path

import click

from mayfly.cli.endorse.group import endorse
from mayfly.cli.output import plain
from mayfly.config import Paths
from mayfly.images.lists.keypair import make_pair
from mayfly.images.lists.model import show_time


@endorse.group()
def key() -> None:
    """Make the key that images and lists are signed with."""


@key.command(
    "create",
    epilog="""\b
Example:
  mayfly endorse key create --subject "/C=DE/O=Our site/CN=Jo Doe"

\b
Whoever has the key can bring images to all sites that trust it: keep it where
only you can read it, and a copy where it does not burn. Sites are given the
certificate, and compare its fingerprint with what you tell them.
""",
)
@click.option("--subject", required=True, metavar="NAME", help="/O=SITE/CN=YOUR NAME.")
@click.option("--days", default=730, show_default=True, help="How long it is valid.")
@click.option("--directory", type=click.Path(path_type=Path), help="Where it is written.")
def create_key(subject: str, days: int, directory: Path | None) -> None:
    """Make a key and a certificate that it signs itself."""
    made = make_pair(directory or Paths.for_user().endorse, subject, days)
    click.echo(f"key          {made.signer.key}")
    click.echo(f"certificate  {made.signer.certificate}")
    click.echo(f"name         {plain(made.owner.subject.slash)}")
    click.echo(f"valid until  {show_time(made.owner.not_after)}")
    click.echo(f"fingerprint  {made.owner.fingerprint}")
