"""The EC2 API as an ASGI application: bounded reading here, the work in threads.

Any ASGI server runs it (https://asgi.readthedocs.io/en/latest/specs/www.html).
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from mayfly.ec2.fault import Fault
from mayfly.ec2.service import Response, Service, refuse
from mayfly.ec2.signature import Request

BODY_BYTES = 256 << 10
"""User data of 16 KiB, in base64, escaped, and a thousand ids fit."""
BODY_S = 30.0
"""How long a body may take to come."""

# Types of the ASGI specification, which has everything in dictionaries.
Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class ClientGone(Exception):
    """The client hung up before its request was whole."""


@dataclass(frozen=True, slots=True)
class App:
    """The application."""

    service: Service
    body_s: float = BODY_S

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's request."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(self.body_s):
                body = await _read(scope, receive)
        except ClientGone:
            return
        except TimeoutError:
            slow = Fault("RequestTimeout", "The body did not come in time", status=408)
            response = refuse(slow, str(uuid.uuid4()))
        except Fault as fault:
            response = refuse(fault, str(uuid.uuid4()))
        else:
            client = str((scope.get("client") or ("",))[0])
            request = _request(scope, body)
            response = await asyncio.to_thread(self.service.answer, request, client)
        await _write(response, scope["method"], send)


async def _read(scope: Scope, receive: Receive) -> bytes:
    refused = Fault("RequestEntityTooLarge", f"A body has at most {BODY_BYTES} bytes", status=413)
    length = dict(scope["headers"]).get(b"content-length", b"0")
    if not length.isdigit() or len(length) > 9 or int(length) > BODY_BYTES:
        raise refused
    parts = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        parts += message.get("body", b"")
        if len(parts) > BODY_BYTES:
            raise refused
        more = message.get("more_body", False)
    return bytes(parts)


def _request(scope: Scope, body: bytes) -> Request:
    raw = scope.get("raw_path") or quote(scope["path"]).encode()
    return Request(
        method=scope["method"],
        path=raw,
        query=scope["query_string"],
        headers=tuple(
            (name.decode("latin-1").lower(), value.decode("utf-8", "surrogateescape"))
            for name, value in scope["headers"]
        ),
        body=body,
    )


async def _write(response: Response, method: str, send: Send) -> None:
    body = b"" if method == "HEAD" else response.body
    headers = [
        (b"content-type", b"text/xml;charset=UTF-8"),
        (b"content-length", str(len(response.body)).encode()),
        (b"x-amzn-requestid", response.request.encode()),
        (b"cache-control", b"no-store"),
    ]
    if response.status in (408, 413):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
