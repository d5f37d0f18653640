"""Follow lists as a site does: ask for them, and tell the site's program what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mayfly.config import Settings
from mayfly.images.catalogue import Catalogue
from mayfly.images.lists.events import Event, EventType, Herald
from mayfly.images.lists.fetch import fetch
from mayfly.images.lists.store import TrustStore
from mayfly.images.lists.update import Fetch, TrustSettings, Updated, update, update_all
from mayfly.images.lists.uris import UriRules


def trust_settings(settings: Settings) -> TrustSettings:
    """Give what a site has set for lists."""
    grids = (Path(settings.grid_certificates),) if settings.grid_certificates else ()
    return TrustSettings(
        sha1=settings.trust_sha1, uris=UriRules(inner=settings.trust_local_urls), grids=grids
    )


def disks_of(catalogue: Catalogue) -> Mapping[str, Path]:
    """Give the images that are here by the SHA-512 that a list has of them."""
    return {sha512: image.disk for image in catalogue.list() for sha512 in image.contents}


@dataclass(frozen=True, slots=True, kw_only=True)
class Follower:
    """Asks for lists, and tells the site's program."""

    store: TrustStore
    settings: TrustSettings
    program: Path | None = None
    """What is told when images come and go."""
    disks: Callable[[], Mapping[str, Path]] = dict
    ask: Fetch = fetch

    def update(self, now: datetime, only: str = "") -> list[Updated]:
        """Ask for all lists, or for one."""
        herald = self._herald()
        if herald:
            herald.tell(Event(type=EventType.PROCESS_PREFIX))
        if only:
            done = [update(self.store, only, self.settings, now=now, ask=self.ask)]
        else:
            done = update_all(self.store, self.settings, now=now, ask=self.ask)
        if herald:
            herald.announce(self.disks(), now)
            herald.tell(Event(type=EventType.PROCESS_POSTFIX))
        return done

    def announce(self, now: datetime) -> None:
        """Tell the program what has changed, after anything that changes what is trusted or here.

        It costs nothing where there is no such program.
        """
        if herald := self._herald():
            herald.announce(self.disks(), now)

    def _herald(self) -> Herald | None:
        return Herald(program=self.program, store=self.store) if self.program else None


def follower_for(settings: Settings, trust: Path, catalogue: Catalogue) -> Follower:
    """Give who follows the lists in a directory of trust."""
    return Follower(
        store=TrustStore(directory=trust),
        settings=trust_settings(settings),
        program=Path(settings.event_handler) if settings.event_handler else None,
        disks=lambda: disks_of(catalogue),
    )
