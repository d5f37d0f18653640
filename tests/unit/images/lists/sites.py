"""A site in a test: what it trusts, and the server that it asks for lists."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from mayfly.errors import Unavailable
from mayfly.images.lists.check import Principal
from mayfly.images.lists.openssl import Signer
from mayfly.images.lists.store import TrustStore
from mayfly.images.lists.subscriptions import Subscription
from mayfly.images.lists.update import Request, TrustSettings, Updated, subscribe, update
from tests.unit.images.lists.pki import NOW
from tests.unit.images.lists.samples import LIST, endorser_of

URL = "https://lists.example.org/test.list"


@dataclass(slots=True, kw_only=True)
class Server:
    """What a web server would give: a message, or nothing."""

    message: bytes | None
    asked: list[str] = field(default_factory=list)

    def __call__(self, url: str) -> bytes:
        """Answer."""
        self.asked.append(url)
        if self.message is None:
            raise Unavailable(f"cannot fetch {url}: no route to host")
        return self.message


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A site that follows one list."""

    store: TrustStore
    server: Server
    settings: TrustSettings

    def subscribe(self, signer: Signer, *image_endorsers: Signer) -> Subscription:
        """Follow the list that the server has."""
        request = Request(
            url=URL,
            endorsers=(principal(signer),),
            image_endorsers=tuple(principal(each) for each in image_endorsers),
        )
        return subscribe(self.store, request, self.settings, now=NOW, ask=self.server)

    def update(self, now: datetime = NOW) -> Updated:
        """Ask the server."""
        return update(self.store, LIST, self.settings, now=now, ask=self.server)


def principal(signer: Signer) -> Principal:
    """Name a signer as an admin would: without the authority."""
    return Principal(dn=endorser_of(signer).dn)


def make_site(directory: Path, grid: Path, message: bytes | None) -> Site:
    """Make a site with nothing there yet."""
    return Site(
        store=TrustStore(directory=directory),
        server=Server(message=message),
        settings=TrustSettings(grids=(grid,)),
    )
