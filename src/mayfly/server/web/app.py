"""All of the web page, put together."""

from __future__ import annotations

from fastapi import FastAPI

from mayfly.server.auth import Door
from mayfly.server.site import Site
from mayfly.server.web.creating import make_creating
from mayfly.server.web.looking import make_looking
from mayfly.server.web.machines import make_machines
from mayfly.server.web.signin import make_links, make_sign_in
from mayfly.server.web.visits import Visits


def add_pages(app: FastAPI, site: Site, door: Door, url: str) -> None:
    """Add the pages to the application; ``url``: where browsers find it, empty if nowhere."""
    visits = Visits(site=site, roles=door.roles, url=url)
    app.state.visits = visits
    app.include_router(make_links(visits))
    app.include_router(make_sign_in(visits, door))
    app.include_router(make_machines(site))
    app.include_router(make_creating(site))
    app.include_router(make_looking(site))
