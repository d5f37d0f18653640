"""Signing in: by a one-time link that a local user has printed, or by a token; and out again."""

from __future__ import annotations

import logging

import jwt
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from mayfly.errors import Denied, Invalid, MayflyError
from mayfly.server.auth import Door, Who
from mayfly.server.problems import status_of
from mayfly.server.web.form import Fields, Form, own_path
from mayfly.server.web.pages import Page, go, render
from mayfly.server.web.visits import (
    SESSION_S,
    THEMES,
    Visiting,
    Visits,
    check_form,
    csrf_of,
    fresh_secret,
)

log = logging.getLogger("mayfly.server")

YEAR_S = 366 * 86_400.0


class LinkOut(BaseModel):
    """A link that signs its bearer in, once, within ten minutes."""

    url: str


def make_links(visits: Visits) -> APIRouter:
    """Give the route of REST that makes links."""
    router = APIRouter(prefix="/v1")

    @router.post("/web/links", status_code=201, response_model=LinkOut)
    def link(asker: Who) -> LinkOut:
        """Make a link that signs the caller in to the web page, once, within ten minutes."""
        if not visits.url:
            raise Invalid(
                "this server has no web page that a browser can come to",
                hint="set 'listen', or 'url' of '[web]', in server.toml",
            )
        return LinkOut(url=f"{visits.url}/sign-in?code={visits.link(asker)}")

    return router


def make_sign_in(visits: Visits, door: Door) -> APIRouter:
    """Give the pages."""
    router = APIRouter(route_class=Page, include_in_schema=False)

    @router.get("/sign-in")
    def show(request: Request, code: str = "", then: str = "/machines") -> Response:
        code = code[:64]
        name = visits.whose(code) if code else ""
        trouble = "This link was used already, or its time is over." if code and not name else ""
        words = {"code": code if name else "", "name": name, "trouble": trouble}
        return _form(request, visits, door, {**words, "then": own_path(then)})

    @router.post("/sign-in")
    def enter(request: Request, fields: Form) -> Response:
        # Without this another site could sign somebody in as somebody else.
        check_form(request, fields, csrf_of(request.cookies.get(visits.before, "")))
        then = own_path(fields.get("then", ""))
        try:
            secret, life_s = _session(visits, door, fields)
        except MayflyError as error:
            words = f"{error.message}. {error.hint}".rstrip(". ")
            shown = {"then": then, "trouble": words}
            return _form(request, visits, door, shown, status=status_of(error))
        old = visits.find(request)
        if old is not None:
            visits.end(old.secret)
        log.info("a session of the web page begins id=%s", request.state.request_id)
        response = go(then)
        visits.set_cookie(response, visits.cookie, secret, life_s)
        visits.drop_cookie(response, visits.before)
        return response

    _add_others(router, visits)
    return router


def _add_others(router: APIRouter, visits: Visits) -> None:
    @router.post("/sign-out")
    def leave(request: Request, fields: Form, visitor: Visiting) -> Response:
        check_form(request, fields, visitor.csrf)
        visits.end(visitor.secret)
        response = go("/sign-in")
        visits.drop_cookie(response, visits.cookie)
        return response

    @router.post("/theme")
    def theme(fields: Form) -> Response:
        chosen = fields.get("theme", "")
        response = go(own_path(fields.get("then", "")))
        if chosen in THEMES:
            visits.set_cookie(response, "mayfly-theme", chosen, YEAR_S)
        return response


def _form(
    request: Request, visits: Visits, door: Door, words: Fields, *, status: int = 200
) -> Response:
    secret = request.cookies.get(visits.before) or fresh_secret()
    shown = {"code": "", "name": "", "trouble": "", **words, "csrf": csrf_of(secret)}
    takes_tokens = bool(door.tokens.issuers)
    # Without who is signed in: whoever comes here is about to be somebody.
    response = render(
        request, "sign-in.html", None, status=status, takes_tokens=takes_tokens, **shown
    )
    visits.set_cookie(response, visits.before, secret, SESSION_S)
    return response


def _session(visits: Visits, door: Door, fields: Fields) -> tuple[str, float]:
    """Begin a session with what was sent; gives its secret and how long it lives, in seconds."""
    if code := fields.get("code", ""):
        return visits.by_link(code), SESSION_S
    token = fields.get("token", "")
    if not token:
        raise Denied("a token was expected", hint="or open the link that 'mayfly web login' prints")
    name, groups = door.tokens.check(token)
    # Checked already: only its end is read here.
    ends_at = float(jwt.decode(token, options={"verify_signature": False})["exp"])
    life_s = min(ends_at - visits.site.clock(), SESSION_S)
    return visits.by_token(name, groups, life_s), life_s
