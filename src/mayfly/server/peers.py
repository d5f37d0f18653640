"""uvicorn's protocols, taught to tell who is at the other end of a unix socket.

The kernel's word (SO_PEERCRED) stands where an address stands for TCP: nothing that a client sends
gets there, and ``proxy_headers`` is off.
"""

from __future__ import annotations

import asyncio
import socket
import struct

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.wsproto_impl import WSProtocol

PEER = "\0uid"
"""In place of an address; no address begins so."""
_CREDENTIALS = struct.Struct("iII")


def _peer(transport: asyncio.BaseTransport) -> tuple[str, int] | None:
    connection = transport.get_extra_info("socket")
    if connection is None or connection.family != socket.AF_UNIX:
        return None
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return PEER, _CREDENTIALS.unpack(packed)[1]


class PeerHttp(H11Protocol):
    """HTTP/1.1 whose client is known."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Ask the kernel who has connected."""
        super().connection_made(transport)
        self.client = _peer(transport) or self.client


class PeerSocket(WSProtocol):
    """A web socket whose client is known."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Ask the kernel who has connected."""
        super().connection_made(transport)
        self.client = _peer(transport) or self.client
