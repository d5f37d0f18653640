"""Run the server: listen, keep the leases, stop gracefully."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from mayfly.errors import Conflict, Denied, Invalid
from mayfly.reconcile.loop import Reconciler
from mayfly.server.peers import PeerHttp, PeerSocket

GRACE_S = 10
BACKLOG = 1024

log = logging.getLogger("mayfly.server")


def serve(app: FastAPI, reconciler: Reconciler, sockets: list[socket.socket]) -> None:
    """Serve until SIGTERM; what is under way is finished first."""
    thread = threading.Thread(target=reconciler.run, name="reconcile")
    thread.start()
    # uvicorn sends itself the signal again when it has stopped: we are not done by then.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    try:
        asyncio.run(uvicorn.Server(config_of(app)).serve(sockets=sockets))
    finally:
        reconciler.stop()
        thread.join()
        for each in sockets:
            each.close()


def config_of(app: FastAPI) -> uvicorn.Config:
    """Give how the site's application is served."""
    return plain_config(app, http=PeerHttp, ws=PeerSocket, h11_max_incomplete_event_size=65_536)


def plain_config(app: Any, **more: Any) -> uvicorn.Config:
    """Give how an application of ours is served; ``more``: what uvicorn is to do besides."""
    return uvicorn.Config(
        app,
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
        **more,
    )


def listen(path: Path | None, address: str) -> list[socket.socket]:
    """Listen where the settings say; raises ``Invalid``, ``Denied`` or ``Conflict``."""
    sockets = []
    if path is not None:
        sockets.append(_listen_at(path))
    if address:
        sockets.append(_listen_to(address))
    if not sockets:
        raise Invalid("the server would listen nowhere", hint="set 'socket' or 'listen'")
    return sockets


def _listen_at(path: Path) -> socket.socket:
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            if probe.connect_ex(str(path)) == 0:
                raise Conflict(f"another server listens at {path}")
        fresh.unlink(missing_ok=True)
        door.bind(str(fresh))
        fresh.chmod(0o666)
        door.listen(BACKLOG)
        fresh.rename(path)
    except OSError as error:
        door.close()
        raise Denied(f"cannot listen at {path}: {error.strerror}") from error
    return door


def _listen_to(address: str) -> socket.socket:
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65_535:
        raise Invalid(f"'listen' must be ADDRESS:PORT, not '{address}'")
    plain = host.strip("[]")
    try:
        family = socket.AF_INET6 if ":" in plain else socket.AF_INET
        return socket.create_server((plain, int(port)), family=family, backlog=BACKLOG)
    except OSError as error:
        raise Denied(f"cannot listen at {address}: {error.strerror or error}") from error


def close(path: Path | None) -> None:
    """Take the socket away: who finds one expects a server behind it."""
    if path is not None:
        path.unlink(missing_ok=True)
