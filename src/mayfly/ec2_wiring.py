"""Puts the EC2 API together from ``server.toml``: a process of its own beside the site server.

It speaks to the same database; what it writes down there, the server's loop carries out;
it rings the server's bell, so that the loop does so at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pwd
import signal
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import uvicorn

from mayfly.ec2.app import App
from mayfly.ec2.credentials import Issued, Vault, read_key_file, write_key_file
from mayfly.ec2.ports import Backend
from mayfly.ec2.service import Service
from mayfly.ec2.values import InstanceType, Region
from mayfly.errors import Denied, Missing
from mayfly.model import Shape
from mayfly.server.bell import bell_of, ring
from mayfly.server.ec2.machines import LeasedMachines, local_asker
from mayfly.server.ec2.notes import Notes
from mayfly.server.serve import listen, plain_config
from mayfly.server.settings import Ec2Settings, ServerSettings, load_server_settings
from mayfly.server.site import Site
from mayfly.site_wiring import database_of, site_of
from mayfly.store import schema

log = logging.getLogger("mayfly.ec2")


def serve(config: Path | None) -> None:
    """Answer EC2 requests until told to stop."""
    _refuse_root()
    settings = load_server_settings(config)
    database = database_of(settings)
    schema.check(database)
    site = site_of(settings, database)
    if settings.socket is not None:
        # The loop that carries leases out is the server's.
        site = replace(site, wake=partial(ring, bell_of(settings.socket)))
    service = service_of(settings, site)
    sockets = listen(None, settings.ec2.listen)
    uvicorn_config = plain_config(App(service), ws="none")
    host, port = sockets[0].getsockname()[:2]
    log.info("the EC2 API listens at %s:%s", host, port)
    # uvicorn sends itself the signal again when it has stopped: the end is a good one.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    asyncio.run(uvicorn.Server(uvicorn_config).serve(sockets=sockets))


def service_of(settings: ServerSettings, site: Site) -> Service:
    """Give what answers requests, over this site's leases."""
    sizes = tuple(
        InstanceType(name=name, shape=Shape(cpus=each.cpus, memory_mib=each.memory))
        for name, each in settings.ec2.types.items()
    )
    machines = LeasedMachines(site=site, sizes=sizes, people=local_asker)
    notes = Notes(site.database, site.clock)
    backend = Backend(
        machines=machines,
        key_pairs=notes,
        tags=notes,
        catalogue=machines,
        region=_region(settings.ec2),
    )
    vault = Vault(read_key_file(settings.ec2.key_file))
    return Service(backend=backend, credentials=notes, vault=vault)


def issue_key(config: Path | None, owner: str) -> Issued:
    """Make an EC2 key for a user, and the key file if there is none yet.

    Raises ``Missing`` for a user that this computer does not know.
    """
    _refuse_root()
    try:
        pwd.getpwnam(owner)
    except KeyError:
        raise Missing(f"this computer knows no user '{owner}'") from None
    settings = load_server_settings(config)
    write_key_file(settings.ec2.key_file)
    issued = Vault(read_key_file(settings.ec2.key_file)).issue(owner, datetime.now(UTC))
    database = database_of(settings)
    schema.check(database)
    Notes(database).add_credential(issued.credential)
    return issued


def revoke_key(config: Path | None, access_key: str) -> None:
    """Take an EC2 key out of force; raises ``Missing``."""
    _refuse_root()
    database = database_of(load_server_settings(config))
    schema.check(database)
    if not Notes(database).remove_credential(access_key):
        raise Missing(f"there is no EC2 key '{access_key}'")


def _region(settings: Ec2Settings) -> Region:
    return Region(
        name=settings.region,
        zone=f"{settings.region}-a",
        endpoint=settings.endpoint or settings.listen,
    )


def _refuse_root() -> None:
    if os.geteuid() == 0:
        raise Denied(
            "the EC2 API does not run as root: it needs no right of root's",
            hint="run it as the user of the site server",
        )
