"""``mayfly trust registry``: believe a key that signs images of a registry."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import click

from mayfly.cli.trust.group import store, trust
from mayfly.errors import Invalid
from mayfly.images.cosign.keys import RegistryKey, parse_prefix
from mayfly.images.lists.model import show_time
from mayfly.images.lists.openssl import fingerprint_of, public_key

_KEY_MOST = 64 << 10


@trust.command(
    epilog="""\b
Examples:
  mayfly trust registry registry.example.org/lab --key cosign.pub
  mayfly trust registry registry.example.org --key old.pub --until 2027-06-30
  mayfly trust registry registry.example.org/lab --key new.pub --name lab-2027

\b
From then on an image from there comes in only if the key has signed it (cosign sign
--key), and may run as one that a list vouches for. Of several prefixes the longest
counts; of several keys for one prefix any is enough.
"""
)
@click.argument("prefix", metavar="HOST[:PORT][/PATH]")
@click.option(
    "--key",
    "file",
    required=True,
    type=click.Path(path_type=Path),
    help="The public key, PEM: what cosign calls cosign.pub.",
)
@click.option("--name", default="", help="What to call it here [default: from the prefix].")
@click.option(
    "--until",
    type=click.DateTime(["%Y-%m-%d"]),
    help="The last day on which it is believed [default: no such day].",
)
@click.option("--force", is_flag=True, help="Take the place of one of that name.")
def registry(prefix: str, file: Path, name: str, until: datetime | None, force: bool) -> None:
    """Believe a key for images from a registry, or from a part of it."""
    where = parse_prefix(prefix)
    pem, kind = public_key(_read(file))
    key = RegistryKey(
        name=name or _name_of(where),
        prefix=where,
        pem=pem.decode("ascii"),
        kind=kind,
        fingerprint=fingerprint_of(pem),
        until=until.replace(hour=23, minute=59, second=59, tzinfo=UTC) if until else None,
    )
    store().add_registry_key(key, force=force)
    click.echo(f"added registry key {key.name}")
    click.echo(f"  for          {key.prefix}")
    click.echo(f"  kind         {key.kind}")
    click.echo(f"  until        {show_time(key.until) if key.until else 'it is removed'}")
    click.echo(f"  fingerprint  {key.fingerprint}")


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            data = opened.read(_KEY_MOST)
    except OSError as error:
        raise Invalid(f"cannot read {file}: {error.strerror}") from error
    if b"PRIVATE KEY-----" in data:
        raise Invalid(
            f"{file} is a private key, which nobody else should have",
            hint="give the public one: cosign.pub, or 'openssl pkey -in KEY -pubout'",
        )
    return data


def _name_of(prefix: str) -> str:
    words = re.sub(r"[^a-z0-9._-]+", "-", prefix.lower()).strip("-._")
    return words[:64].rstrip("-._")
