"""Pages to look at: images, what happened, the site; and the files that all pages need."""

from __future__ import annotations

import mimetypes
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from mayfly.errors import Denied, MayflyError, Missing
from mayfly.model import State
from mayfly.server.site import Site, scope_of
from mayfly.server.web.machines import ID
from mayfly.server.web.pages import HEADERS, Page, render, static_files
from mayfly.server.web.visits import Visiting
from mayfly.server.web.words import TONES, happened, moment, row_of
from mayfly.store import leases as rows
from mayfly.store import log as diary
from mayfly.store.log import Event

EVENTS = 100
FAILURES = 20
GROUPS = 50
FOREVER = "public, max-age=31536000, immutable"


def make_looking(site: Site) -> APIRouter:
    """Give the pages."""
    router = APIRouter(route_class=Page, include_in_schema=False)
    _add_static(router)
    _add_images(router, site)
    _add_site(router, site)

    @router.get("/events")
    def events(
        request: Request,
        visitor: Visiting,
        before: Annotated[str, Query(pattern=rf"{ID}|^$")] = "",
    ) -> Response:
        with site.database.reading() as connection:
            scope = scope_of(visitor.asker)
            found = diary.latest(connection, scope, before=before, limit=EVENTS + 1)
        more = found[EVENTS - 1].id if len(found) > EVENTS else ""
        shown = [_event(each) for each in found[:EVENTS]]
        return render(request, "events.html", visitor, events=shown, more=more)

    return router


def _event(event: Event) -> dict[str, str]:
    detail = ", ".join(
        f"{name.replace('expires_at', 'until')} {_plain(name, value)}"
        for name, value in event.detail.items()
        if value not in (None, "")
    )
    return {
        "at": moment(event.at),
        "kind": happened(event.kind),
        "lease": event.lease,
        "owner": event.owner,
        "actor": event.actor.removeprefix("user:"),
        "source": event.source,
        "detail": detail,
    }


def _plain(name: str, value: object) -> object:
    timed = name.endswith("_at") and isinstance(value, int | float)
    return moment(float(value)) if timed and isinstance(value, int | float) else value


def _add_static(router: APIRouter) -> None:
    @router.get("/static/{stamp}/{name}")
    def static(stamp: str, name: str) -> Response:
        data, now = static_files().get(name, (b"", ""))
        if not now or stamp != now:
            raise Missing("there is no such file")
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        headers = {**HEADERS, "Cache-Control": FOREVER}
        return Response(data, 200, headers, media_type=kind)


def _add_images(router: APIRouter, site: Site) -> None:
    @router.get("/images")
    def images(request: Request, visitor: Visiting) -> Response:
        trouble = ""
        try:
            found = sorted({(one.image, one.pin) for one in site.images()})
        except MayflyError as error:
            found, trouble = [], error.message
        shown = [{"name": name, "digest": pin.partition("@")[2]} for name, pin in found]
        return render(request, "images.html", visitor, images=shown, trouble=trouble)


def _add_site(router: APIRouter, site: Site) -> None:
    @router.get("/site")
    def show(request: Request, visitor: Visiting) -> Response:
        asker = visitor.asker
        if not (asker.operator or asker.auditor):
            raise Denied("this page is for operators and auditors of the site")
        with site.database.reading() as connection:
            counts = rows.counted(connection)
            groups = rows.held_by_groups(connection, limit=GROUPS)
            bad = rows.in_states(connection, (State.FAILED, State.UNKNOWN), limit=FAILURES)
        now = site.clock()
        return render(
            request,
            "site.html",
            visitor,
            counts=[(state.value, TONES[state], counts.get(state.value, 0)) for state in TONES],
            groups=groups,
            bad=[row_of(each, now, may_change=False) for each in bad],
            trouble=site.reconciler.trouble,
            rounds=site.reconciler.rounds,
        )
