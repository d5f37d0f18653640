"""Pages of machines: the list, one of them, and what can be done with it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from mayfly.errors import Invalid
from mayfly.server.site import Site, may_change
from mayfly.server.web.form import Form
from mayfly.server.web.pages import Page, go, render
from mayfly.server.web.visits import Visiting, check_form
from mayfly.server.web.words import Row, happened, moment, row_of, span
from mayfly.site.lease import Lease, Wanted
from mayfly.site.people import Asker
from mayfly.store import leases as rows
from mayfly.store.leases import Scope
from mayfly.units import parse_duration

PAGE = 50
ID = r"^[0-9a-f-]{36}$"
Id = Annotated[str, Path(pattern=ID)]
SPANS = {"4h": "4 hours", "1d": "1 day", "3d": "3 days", "7d": "7 days", "30d": "30 days"}
"""Times that a form offers."""


def spans(site: Site) -> dict[str, str]:
    """Give those of them that the site allows."""
    most_s = site.reconciler.ladder.most_s
    return {key: word for key, word in SPANS.items() if parse_duration(key) <= most_s}


def make_machines(site: Site) -> APIRouter:
    """Give the pages."""
    router = APIRouter(route_class=Page, include_in_schema=False)
    _add_list(router, site)
    _add_one(router, site)
    _add_changes(router, site)
    return router


def _add_list(router: APIRouter, site: Site) -> None:
    @router.get("/")
    def home() -> Response:
        return go("/machines")

    @router.get("/machines")
    def machines(
        request: Request,
        visitor: Visiting,
        after: Annotated[str, Query(pattern=rf"{ID}|^$")] = "",
        of: Annotated[str, Query(pattern="^(mine|all)$")] = "mine",
        ended: Annotated[int, Query(ge=0, le=1)] = 0,
    ) -> Response:
        asker = visitor.asker
        found = _page(site, asker, after=after, mine=of == "mine", ended=bool(ended))
        with site.database.reading() as connection:
            held = rows.held_by(connection, asker.name)
        return render(
            request,
            "machines.html",
            visitor,
            rows=[_row(site, asker, one) for one in found[:PAGE]],
            more=found[PAGE - 1].id if len(found) > PAGE else "",
            held=held,
            quota=site.quotas.user,
            sees_more=sees_more(asker),
            of=of,
            ended=ended,
            trouble=site.reconciler.trouble,
        )


def _page(site: Site, asker: Asker, *, after: str, mine: bool, ended: bool) -> list[Lease]:
    if not mine:
        return list(site.page(asker, after=after, limit=PAGE + 1, ended=ended))
    with site.database.reading() as connection:
        own = Scope(owner=asker.name)
        return list(rows.page(connection, own, after=after, limit=PAGE + 1, ended=ended))


def sees_more(asker: Asker) -> bool:
    """Say whether somebody sees machines of others."""
    return asker.operator or asker.auditor or bool(asker.manages)


def _row(site: Site, asker: Asker, lease: Lease) -> Row:
    return row_of(lease, site.clock(), may_change=may_change(asker, lease))


def _add_one(router: APIRouter, site: Site) -> None:
    @router.get("/machines/{word}")
    def one(request: Request, word: Id, visitor: Visiting) -> Response:
        return _shown(request, site, visitor, "machine.html", word)

    @router.get("/machines/{word}/delete")
    def ask(request: Request, word: Id, visitor: Visiting) -> Response:
        return _shown(request, site, visitor, "delete.html", word)


def _shown(request: Request, site: Site, visitor: Visiting, template: str, word: str) -> Response:
    asker = visitor.asker
    row = _row(site, asker, site.find(asker, word))
    events = site.events(asker, after="", lease=row.id, limit=200)
    words: dict[str, Any] = {
        "row": row,
        "events": [(moment(each.at), happened(each.kind), each.actor) for each in reversed(events)],
        "spans": spans(site),
        "grace": span(site.reconciler.ladder.grace_s),
    }
    return render(request, template, visitor, **words)


def _add_changes(router: APIRouter, site: Site) -> None:
    @router.post("/machines/{word}/extend")
    def extend(request: Request, word: Id, fields: Form, visitor: Visiting) -> Response:
        check_form(request, fields, visitor.csrf)
        if fields.get("for", "") not in spans(site):
            raise Invalid("choose one of the times that the page offers")
        end = site.clock() + parse_duration(fields["for"])
        lease = site.find(visitor.asker, word)
        # "Extend" never takes time away: what is left is the least.
        site.extend(visitor.asker, word, max(end, lease.expires_at), lease.version)
        return go(f"/machines/{word}", "extended")

    @router.post("/machines/{word}/suspend")
    def suspend(request: Request, word: Id, fields: Form, visitor: Visiting) -> Response:
        check_form(request, fields, visitor.csrf)
        site.want(visitor.asker, word, Wanted.SUSPENDED)
        return go(f"/machines/{word}", "suspended")

    @router.post("/machines/{word}/resume")
    def resume(request: Request, word: Id, fields: Form, visitor: Visiting) -> Response:
        check_form(request, fields, visitor.csrf)
        site.want(visitor.asker, word, Wanted.RUNNING)
        return go(f"/machines/{word}", "resumed")

    @router.post("/machines/{word}/delete")
    def delete(request: Request, word: Id, fields: Form, visitor: Visiting) -> Response:
        check_form(request, fields, visitor.csrf)
        site.want(visitor.asker, word, Wanted.GONE)
        return go("/machines", "deleted")
