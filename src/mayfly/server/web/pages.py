"""How a page is made and sent: templates that escape, headers that forbid, errors as pages."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine, Mapping
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, RedirectResponse

from mayfly import __version__
from mayfly.errors import MayflyError
from mayfly.server.auth import Unknown
from mayfly.server.problems import status_of
from mayfly.server.web.visits import Visitor, Visits, theme_of

HERE = Path(__file__).parent
STATIC = HERE / "static"
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Nothing inline, nothing from elsewhere, in nobody's frame."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
SAID = {
    "created": "The machine is on its way.",
    "extended": "The machine has more time.",
    "suspended": "The machine is being put to sleep.",
    "resumed": "The machine is being woken.",
    "deleted": "The machine is being deleted.",
}
"""What a page may say was done: words of ours, never of whoever made the address."""
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


@cache
def static_files() -> Mapping[str, tuple[bytes, str]]:
    """Give what lies in the folder, by name: its bytes, and a word that changes when they do."""
    found = {}
    for file in sorted(STATIC.iterdir()):
        data = file.read_bytes()
        found[file.name] = (data, hashlib.sha256(data).hexdigest()[:12])
    return found


def address_of(name: str) -> str:
    """Give where a file of the folder is had; browsers keep it until it changes."""
    return f"/static/{static_files()[name][1]}/{name}"


@cache
def _templates() -> Environment:
    found = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals["static"] = address_of
    found.globals["version"] = __version__
    return found


def render(
    request: Request,
    template: str,
    visitor: Visitor | None,
    *,
    status: int = 200,
    **words: Any,
) -> Response:
    """Give a page."""
    text = (
        _templates()
        .get_template(template)
        .render(
            visitor=visitor,
            theme=theme_of(request),
            path=request.url.path if request.method == "GET" else "/machines",
            said=SAID.get(request.query_params.get("said", ""), ""),
            **words,
        )
    )
    return HTMLResponse(text, status, HEADERS)


def go(path: str, said: str = "") -> Response:
    """Send the browser on to another page of ours, which then says what was done."""
    return RedirectResponse(f"{path}?said={said}" if said else path, 303, HEADERS)


class Page(APIRoute):
    """A route whose errors are pages."""

    def get_route_handler(self) -> Handler:
        """Give the handler, with errors caught."""
        inner = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                return await inner(request)
            except Unknown:
                return _to_sign_in(request)
            except MayflyError as error:
                words = (status_of(error), error.message, error.hint)
            except RequestValidationError:
                words = (400, "the address is not one of this site's", "")
            return await run_in_threadpool(error_page, request, *words)

        return handler


def _to_sign_in(request: Request) -> Response:
    if "x-live" in request.headers:
        return Response(status_code=401, headers=HEADERS)
    there = request.url.path if request.method == "GET" else "/machines"
    return RedirectResponse(f"/sign-in?then={quote(there, safe='/')}", 303, HEADERS)


def error_page(request: Request, status: int, message: str, hint: str) -> Response:
    """Give a page that says what went wrong."""
    visits: Visits = request.app.state.visits
    try:
        visitor = visits.find(request)
    except MayflyError:
        visitor = None
    title = HTTPStatus(status).phrase
    words = {"title": title, "message": message, "hint": hint}
    return render(request, "error.html", visitor, status=status, **words)
