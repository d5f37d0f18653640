"""A way to the ssh server of one's machine: a web socket, so that it passes any front end."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from starlette.concurrency import run_in_threadpool

from mayfly.errors import MayflyError
from mayfly.server.auth import Door
from mayfly.server.site import Site

PIECE = 65_536
REFUSED = 4000
"""Code with which the socket is closed when there is no way; the reason says why (RFC 6455)."""
REASON_BYTES = 120

log = logging.getLogger("mayfly.server")


def make_way(site: Site, door: Door) -> APIRouter:
    """Give the route."""
    router = APIRouter(prefix="/v1")

    @router.websocket("/leases/{word}/ssh")
    async def ssh(socket: WebSocket, word: str) -> None:
        try:
            asker = await run_in_threadpool(door.asker, socket)
            argv = await run_in_threadpool(site.reach, asker, word)
        except MayflyError as error:
            await socket.accept()
            reason = error.message.encode()[:REASON_BYTES].decode("utf-8", "ignore")
            await socket.close(REFUSED, reason)
            return
        await socket.accept()
        await _relay(socket, list(argv))

    return router


async def _relay(socket: WebSocket, argv: list[str]) -> None:
    child = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    tasks = [
        asyncio.create_task(_in(socket, child.stdin)),
        asyncio.create_task(_out(socket, child.stdout)),
    ]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            await socket.close()
        await child.wait()


async def _in(socket: WebSocket, stdin: asyncio.StreamWriter) -> None:
    with contextlib.suppress(WebSocketDisconnect, ConnectionError, KeyError):
        while data := await socket.receive_bytes():
            stdin.write(data)
            await stdin.drain()
        stdin.close()
        # The other direction goes on; the client's end is still to be noticed.
        await socket.receive_bytes()


async def _out(socket: WebSocket, stdout: asyncio.StreamReader) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        while data := await stdout.read(PIECE):
            await socket.send_bytes(data)
