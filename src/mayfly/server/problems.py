"""Errors as they travel: problem+json (RFC 9457), from the one table of errors to statuses."""

from __future__ import annotations

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from mayfly.errors import EXIT_AND_HTTP, MayflyError
from mayfly.server.auth import Unknown
from mayfly.server.site import Stale
from mayfly.server.tokens import BadToken

MEDIA_TYPE = "application/problem+json"
SHOWN = 2000

log = logging.getLogger("mayfly.server")


def status_of(error: MayflyError) -> int:
    """Give the HTTP status of an error."""
    if isinstance(error, Unknown | BadToken):
        return 401
    if isinstance(error, Stale):
        return 412
    return EXIT_AND_HTTP.get(type(error), (1, 500))[1]


def problem(request: Request, status: int, detail: str, hint: str = "") -> JSONResponse:
    """Give the answer for an error."""
    headers = {"WWW-Authenticate": 'Bearer realm="mayfly"'} if status == 401 else {}
    if status == 503:
        headers["Retry-After"] = "5"
    content = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail[:SHOWN],
        "hint": hint[:SHOWN],
        "request_id": getattr(request.state, "request_id", ""),
    }
    return JSONResponse(content, status, headers, media_type=MEDIA_TYPE)


def handle_errors(app: FastAPI) -> None:
    """Have an application answer errors so."""

    @app.exception_handler(MayflyError)
    def ours(request: Request, error: MayflyError) -> JSONResponse:
        status = status_of(error)
        if status >= 500:
            log.warning("%s %s: %s", request.method, request.url.path, error.message)
        return problem(request, status, error.message, error.hint)

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(each) for each in first["loc"])
        return problem(request, 400, f"{where}: {first['msg']}")

    @app.exception_handler(HTTPException)
    def others(request: Request, error: HTTPException) -> JSONResponse:
        return problem(request, error.status_code, str(error.detail))
