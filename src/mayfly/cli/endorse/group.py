"""The group ``mayfly endorse``, and what its commands share."""

from __future__ import annotations

from pathlib import Path

import click

from mayfly.config import Paths
from mayfly.errors import Invalid, Missing
from mayfly.images.lists.drafts import Drafts
from mayfly.images.lists.entries import Entries
from mayfly.images.lists.keypair import pair_in
from mayfly.images.lists.openssl import Signer

PASSWORD_MOST = 1024


@click.group(
    epilog="""\b
Examples:
  mayfly endorse key create --subject "/O=Our site/CN=Jo Doe"
  mayfly endorse image el9
  mayfly endorse list create site --title "Our images" --uri https://example.org/site.list
  mayfly endorse list add site el9
  mayfly endorse list sign site
  mayfly endorse list publish site /var/www/html/site.list
  mayfly endorse revoke el9 --reason "CVE-2026-1234"
"""
)
def endorse() -> None:
    """Vouch for images: sign for one, sign and publish lists of them, take one back."""


def drafts() -> Drafts:
    """Give the lists that the calling user makes."""
    return Drafts(directory=Paths.for_user().endorse / "lists")


def entries() -> Entries:
    """Give what the calling user has said of images."""
    return Entries(directory=Paths.for_user().endorse / "images")


def signer_of(key: Path | None, cert: Path | None, password_file: Path | None) -> Signer:
    """Give the key to sign with: the one that is named, or the user's own."""
    own = pair_in(Paths.for_user().endorse)
    if (key is None) != (cert is None):
        raise click.UsageError("--key and --cert go together")
    chosen = own if key is None or cert is None else Signer(key=key, certificate=cert)
    for file in (chosen.key, chosen.certificate):
        if not file.is_file():
            raise Missing(
                f"there is no {file}",
                hint="give --key and --cert, or make a key: 'mayfly endorse key create'",
            )
    return Signer(key=chosen.key, certificate=chosen.certificate, password=_password(password_file))


def _password(file: Path | None) -> str:
    if file is None:
        return ""
    try:
        text = file.read_text("utf-8")[:PASSWORD_MOST]
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"cannot read the password in {file}: {error}") from error
    return text.splitlines()[0] if text else ""
