"""Puts the site server together from ``server.toml``; needs what ``mayfly[server]`` brings."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from mayfly.command import run
from mayfly.errors import Denied, MayflyError
from mayfly.model import Finding
from mayfly.ports import Place
from mayfly.providers.fake import FakePlace
from mayfly.providers.host import HostPlace
from mayfly.reconcile.loop import Reconciler, Remind
from mayfly.server.app import make_app
from mayfly.server.auth import Door
from mayfly.server.bell import bell_of, hung
from mayfly.server.serve import close, listen
from mayfly.server.serve import serve as run_server
from mayfly.server.settings import ServerSettings, load_server_settings
from mayfly.server.site import Site
from mayfly.server.tokens import Issuer, Tokens, read_keys
from mayfly.site.lease import Lease
from mayfly.site.people import Roles
from mayfly.store import backup as store_backup
from mayfly.store import schema
from mayfly.store.database import Database

REMIND_LIMIT_S = 60.0

log = logging.getLogger("mayfly.server")


def serve(config: Path | None) -> None:
    """Run the server until it is told to stop."""
    _refuse_root("the site server does not run as root: it needs no right of root's")
    settings = load_server_settings(config)
    database = database_of(settings)
    schema.migrate(database) if database.is_sqlite else schema.check(database)
    site = site_of(settings, database)
    sockets = listen(settings.socket, settings.listen)
    try:
        with _bell_of(settings, site):
            app = make_app(site, door_of(settings), settings.page_url())
            run_server(app, site.reconciler, sockets)
    finally:
        close(settings.socket)
        database.close()


def _refuse_root(why: str) -> None:
    if os.geteuid() == 0:
        raise Denied(why, hint="run it as a user of its own, the 'site_user' of host.toml")


def _bell_of(settings: ServerSettings, site: Site) -> AbstractContextManager[None]:
    if settings.socket is None:
        return nullcontext()
    return hung(bell_of(settings.socket), site.reconciler.wake)


def migrate(config: Path | None) -> tuple[str, str]:
    """Bring the database up to date; gives the schema before and after."""
    return schema.migrate(database_of(load_server_settings(config)))


def backup(config: Path | None, target: Path) -> int:
    """Write all that the database has into a new file; gives how many rows."""
    return store_backup.backup(database_of(load_server_settings(config)), target)


def restore(config: Path | None, source: Path) -> int:
    """Put a backup into an empty database; gives how many rows."""
    _refuse_root("a backup is not put back by root: the server could not write what root makes")
    return store_backup.restore(database_of(load_server_settings(config)), source)


def check(config: Path | None) -> list[Finding]:
    """Say what the server needs and whether it is there; raises for wrong settings only."""
    settings = load_server_settings(config)
    database = database_of(settings)
    looks: list[tuple[str, Callable[[], str]]] = [
        ("database", lambda: _schema_of(database)),
        ("place", lambda: _images_of(settings)),
        ("issuers", lambda: f"{len(door_of(settings).tokens.issuers)} believed"),
    ]
    found = [_looked(name, look) for name, look in looks]
    database.close()
    return found


def _looked(name: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(name=name, ok=True, detail=look())
    except MayflyError as error:
        return Finding(name=name, ok=False, detail=error.message, mend=error.hint)


def _schema_of(database: Database) -> str:
    schema.check(database)
    return f"schema {schema.newest()}"


def _images_of(settings: ServerSettings) -> str:
    place = place_of(settings)
    place.machines()
    return f"images: {', '.join(sorted(one.image for one in place.offers())) or 'none'}"


def database_of(settings: ServerSettings) -> Database:
    """Give the database."""
    return Database(settings.database)


def site_of(settings: ServerSettings, database: Database) -> Site:
    """Give the leases and what keeps them."""
    place = place_of(settings)
    reconciler = Reconciler(
        database=database,
        place=place,
        ladder=settings.leases.ladder(),
        interval_s=settings.interval,
        remind=_reminder(settings.reminder),
    )
    return Site(
        database=database,
        place=place,
        reconciler=reconciler,
        quotas=settings.quota.quotas(),
        clock=time.time,
        wake=reconciler.wake,
    )


def place_of(settings: ServerSettings) -> Place:
    """Give the place that machines come from."""
    if settings.place == "fake":
        return FakePlace(settings.fake_directory)
    return HostPlace(socket=settings.host_socket)


def door_of(settings: ServerSettings) -> Door:
    """Give what recognises people; raises ``Invalid`` for keys of an issuer that are none."""
    roles = Roles(
        operators=frozenset(settings.roles.operators),
        auditors=frozenset(settings.roles.auditors),
        managers={group: frozenset(who) for group, who in settings.roles.managers.items()},
    )
    issuers = [Issuer(**dict(each)) for each in settings.issuer]
    for issuer in issuers:
        read_keys(issuer.keys)
    return Door(roles=roles, tokens=Tokens(issuers=issuers))


def _reminder(program: Path | None) -> Remind:
    """Give what tells an owner that a lease ends soon: the site's program, or the log."""

    def tell(lease: Lease) -> None:
        words = {
            "event": "lease.reminder",
            "lease": lease.id,
            "name": lease.name,
            "owner": lease.owner,
            "group": lease.group,
            "expires_at": lease.expires_at,
        }
        log.info("reminder: machine %s of %s ends soon", lease.name, lease.owner)
        if program is not None:
            run([str(program)], timeout_s=REMIND_LIMIT_S, stdin=json.dumps(words).encode())

    return tell
