"""The REST interface, version 1."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Query, Response

from mayfly.errors import Invalid
from mayfly.server.auth import Who, who
from mayfly.server.shapes import (
    ChangedLease,
    EventPage,
    ImageList,
    ImageOut,
    LeaseOut,
    LeasePage,
    Me,
    NewLease,
    Problem,
    event_out,
    lease_out,
    seconds,
)
from mayfly.server.site import Site
from mayfly.site.lease import Wanted
from mayfly.store import leases as rows

PAGE, PAGE_MOST = 100, 1000
CURSOR = r"^[0-9a-f-]{36}$"

_PROBLEM = {"model": Problem, "content": {"application/problem+json": {}}}
PROBLEMS: dict[int | str, dict[str, object]] = {
    400: {**_PROBLEM, "description": "The request is wrong."},
    401: {**_PROBLEM, "description": "Nobody that the server knows."},
    403: {**_PROBLEM, "description": "Not allowed."},
    404: {**_PROBLEM, "description": "No such thing, or another's."},
    409: {**_PROBLEM, "description": "It exists, or is in the wrong state."},
    412: {**_PROBLEM, "description": "It was changed since If-Match's version."},
    429: {**_PROBLEM, "description": "More than the quota."},
    503: {**_PROBLEM, "description": "Not now."},
}
Word = Annotated[
    str, Path(description="Id of a lease, or the name of one of yours.", max_length=64)
]


def _etag(response: Response, version: int) -> None:
    response.headers["ETag"] = f'"{version}"'


def _version(if_match: str | None) -> int | None:
    if if_match is None or if_match.strip() == "*":
        return None
    plain = if_match.strip().removeprefix("W/").strip('"')
    if not (plain.isascii() and plain.isdigit() and len(plain) < 12):
        raise Invalid("If-Match must be an ETag of this server")
    return int(plain)


IfMatch = Annotated[str | None, Header(description="ETag that the change is meant for.")]


def make_routes(site: Site) -> APIRouter:
    """Give the routes."""
    router = APIRouter(prefix="/v1", responses=PROBLEMS)
    _add_leases(router, site)
    _add_changes(router, site)
    _add_others(router, site)
    return router


def _add_leases(router: APIRouter, site: Site) -> None:
    @router.post("/leases", status_code=201, response_model=LeaseOut)
    def create(
        new: NewLease,
        response: Response,
        asker: Who,
        idempotency_key: Annotated[str | None, Header(max_length=128, pattern="^[!-~]+$")] = None,
    ) -> LeaseOut:
        """Ask for a machine; it is made after the answer."""
        lease = site.create(asker, new.wish(), idempotency_key or "", dry=new.dry_run)
        _etag(response, lease.version)
        if new.dry_run:
            response.status_code = 200
        else:
            response.headers["Location"] = f"/v1/leases/{lease.id}"
        return lease_out(lease)

    @router.get("/leases", response_model=LeasePage)
    def page(
        asker: Who,
        cursor: Annotated[str | None, Query(pattern=CURSOR)] = None,
        limit: Annotated[int, Query(ge=1, le=PAGE_MOST)] = PAGE,
        ended: Annotated[bool, Query(description="Also those that are gone.")] = False,  # noqa: FBT002 - a parameter of a request
    ) -> LeasePage:
        """List leases, newest first: one's own, and those that one's roles let one see."""
        found = site.page(asker, after=cursor or "", limit=limit, ended=ended)
        more = found[-1].id if len(found) == limit else None
        return LeasePage(items=[lease_out(one) for one in found], next=more)

    @router.get("/leases/{word}", response_model=LeaseOut)
    def show(word: Word, response: Response, asker: Who) -> LeaseOut:
        """Show one lease."""
        lease = site.find(asker, word)
        _etag(response, lease.version)
        return lease_out(lease)


def _add_changes(router: APIRouter, site: Site) -> None:
    @router.patch("/leases/{word}", response_model=LeaseOut)
    def change(
        word: Word,
        changed: ChangedLease,
        response: Response,
        asker: Who,
        if_match: IfMatch = None,
    ) -> LeaseOut:
        """Move a lease's end, or have its machine suspended or running again."""
        version = _version(if_match)
        expires_at = seconds(changed.expires_at)
        if expires_at is not None and changed.wanted is None:
            lease = site.extend(asker, word, expires_at, version)
        elif expires_at is None and changed.wanted is not None:
            lease = site.want(asker, word, Wanted(changed.wanted), version)
        else:
            raise Invalid("say either 'expires_at' or 'wanted'")
        _etag(response, lease.version)
        return lease_out(lease)

    @router.delete("/leases/{word}", response_model=LeaseOut)
    def delete(word: Word, asker: Who, if_match: IfMatch = None) -> LeaseOut:
        """End a lease and its machine."""
        return lease_out(site.want(asker, word, Wanted.GONE, _version(if_match)))


def _add_others(router: APIRouter, site: Site) -> None:
    @router.get("/images", response_model=ImageList, dependencies=[Depends(who)])
    def images() -> ImageList:
        """List the images that machines can be had of."""
        found = [ImageOut(name=one.image, pin=one.pin) for one in site.images()]
        return ImageList(items=found)

    @router.get("/me", response_model=Me)
    def me(asker: Who) -> Me:
        """Show who the server takes one for, and what one has."""
        with site.database.reading() as connection:
            held = rows.held_by(connection, asker.name)
        limit = site.quotas.user
        names = ("machines", "cpus", "memory_mib")
        return Me(
            name=asker.name,
            groups=list(asker.groups),
            manages=list(asker.manages),
            roles=[role.value for role in asker.roles],
            held={name: getattr(held, name) for name in names},
            quota={name: getattr(limit, name) for name in names},
        )

    @router.get("/events", response_model=EventPage)
    def events(
        asker: Who,
        cursor: Annotated[str | None, Query(pattern=CURSOR)] = None,
        lease: Annotated[str | None, Query(pattern=CURSOR)] = None,
        limit: Annotated[int, Query(ge=1, le=PAGE_MOST)] = PAGE,
    ) -> EventPage:
        """List what happened, oldest first, from behind the cursor on."""
        found = site.events(asker, after=cursor or "", lease=lease or "", limit=limit)
        last = found[-1].id if found else cursor or ""
        return EventPage(items=[event_out(one) for one in found], next=last)
