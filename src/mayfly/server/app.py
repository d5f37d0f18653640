"""The application: routes in one readable list, errors to answers in one place."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from mayfly import __version__
from mayfly.errors import MayflyError
from mayfly.server import metrics
from mayfly.server.auth import Door
from mayfly.server.problems import handle_errors
from mayfly.server.routes import make_routes
from mayfly.server.site import Site
from mayfly.server.ssh import make_way
from mayfly.server.web.app import add_pages
from mayfly.store.log import newest

log = logging.getLogger("mayfly.server")

Next = Callable[[Request], Awaitable[Response]]
ROUNDS_LATE_S = 60.0


def make_app(site: Site, door: Door, url: str = "") -> FastAPI:
    """Put the application together; ``url``: where browsers find its web page, empty if nowhere."""
    app = FastAPI(
        title="Mayfly",
        version=__version__,
        description="Leases of throw-away virtual machines.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
    )
    app.state.door = door
    counts = metrics.Counts()
    handle_errors(app)
    app.include_router(make_routes(site))
    app.include_router(make_way(site, door))
    add_pages(app, site, door, url)
    _add_health(app, site, counts)

    @app.middleware("http")
    async def note(request: Request, call_next: Next) -> Response:
        began = time.monotonic()
        request.state.request_id = secrets.token_hex(8)
        response = await call_next(request)
        response.headers["X-Request-Id"] = request.state.request_id
        response.headers["X-Content-Type-Options"] = "nosniff"
        spent_s = time.monotonic() - began
        counts.answered(request.method, response.status_code, spent_s)
        log.info(
            "%s %s %d %.1f ms id=%s",
            request.method,
            request.url.path[:200],
            response.status_code,
            spent_s * 1000,
            request.state.request_id,
        )
        return response

    return app


def _add_health(app: FastAPI, site: Site, counts: metrics.Counts) -> None:
    @app.get("/health", include_in_schema=False)
    def health() -> dict[str, str]:
        return {"status": "alive", "version": __version__}

    @app.get("/ready", include_in_schema=False)
    def ready() -> JSONResponse:
        trouble = site.reconciler.trouble
        try:
            with site.database.reading() as connection:
                newest(connection)
        except MayflyError as error:
            trouble = error.message
        return JSONResponse(
            {"ready": not trouble, "trouble": trouble}, status_code=503 if trouble else 200
        )

    @app.get("/metrics", include_in_schema=False)
    def show_metrics() -> PlainTextResponse:
        return PlainTextResponse(metrics.text(site, counts), media_type=metrics.MEDIA_TYPE)
