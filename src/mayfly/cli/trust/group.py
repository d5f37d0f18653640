"""The group ``mayfly trust``, and what its commands share."""

from __future__ import annotations

import logging
import sys

import click

from mayfly.images.lists.following import Follower, follower_for
from mayfly.images.lists.store import TrustStore
from mayfly.wiring import catalogue_of, load


@click.group(
    epilog="""\b
Examples:
  mayfly trust add endorser.pem
  mayfly trust subscribe https://example.org/site.list --endorser "/O=Our site/CN=Jo Doe"
  mayfly trust update
  mayfly trust show
  mayfly trust block el9 --reason "see ticket 4711"
"""
)
def trust() -> None:
    """Say whose images this site believes; root's word is the site's."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="mayfly: %(message)s")


def store() -> TrustStore:
    """Give what the calling user trusts."""
    return follower().store


def site_store() -> TrustStore | None:
    """Give what the site trusts, when that is another one than what the caller trusts."""
    paths, _ = load()
    other = paths.site_trust != paths.trust
    return TrustStore(directory=paths.site_trust) if other else None


def follower() -> Follower:
    """Give who follows the lists of the calling user."""
    paths, settings = load()
    return follower_for(settings, paths.trust, catalogue_of(paths))
