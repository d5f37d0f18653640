"""The way to a machine's ssh server: a web socket (RFC 6455) between two descriptors.

Only what the server's side needs is spoken: binary messages, ping, close.
"""

from __future__ import annotations

import base64
import os
import secrets
import select
import socket
import ssl
import struct
from urllib.parse import quote

from mayfly.client.api import Client
from mayfly.client.connection import dial
from mayfly.errors import Conflict, Failed

PIECE = 32_768
HEAD_BYTES = 16_384
FRAME_BYTES = 1 << 24
_BINARY, _CLOSE, _PING, _PONG = 0x2, 0x8, 0x9, 0xA
_CONTINUED, _TEXT = 0x0, 0x1


def pump(client: Client, word: str, source: int = 0, sink: int = 1) -> None:
    """Connect two descriptors with the ssh server of a machine, until either side ends.

    Raises ``Conflict`` with what the server says when there is no way, ``Failed`` when it breaks.
    """
    connection = dial(client.address, None)
    try:
        rest = _shake_hands(connection, client, f"/v1/leases/{quote(word, safe='')}/ssh")
        _pump(connection, _Frames(rest), source, sink)
    finally:
        connection.close()


def _shake_hands(connection: socket.socket, client: Client, path: str) -> bytes:
    key = base64.b64encode(secrets.token_bytes(16)).decode()
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {client.address.host}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {key}",
        *(f"{name}: {value}" for name, value in client.headers().items()),
    ]
    connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
    head = b""
    while b"\r\n\r\n" not in head:
        piece = connection.recv(4096)
        if not piece or len(head) > HEAD_BYTES:
            raise Failed("the server gave no way to the machine")
        head += piece
    status, _, rest = head.partition(b"\r\n\r\n")
    first = status.split(b"\r\n", 1)[0]
    if b" 101 " not in first:
        raise Failed(f"the server gave no way to the machine: {first.decode('latin-1')}")
    return rest


class _Frames:
    """Puts frames together from what arrives."""

    def __init__(self, data: bytes) -> None:
        self._data = bytearray(data)

    def feed(self, data: bytes) -> None:
        self._data += data

    def take(self) -> tuple[int, bytes] | None:
        """Give the next frame's kind and content, None when it is not whole yet."""
        data = self._data
        if len(data) < 2:
            return None
        length, begin = data[1] & 0x7F, 2
        if length > 125:
            size = 2 if length == 126 else 8
            if len(data) < 2 + size:
                return None
            length, begin = int.from_bytes(data[2 : 2 + size], "big"), 2 + size
        if length > FRAME_BYTES or data[1] & 0x80:
            raise Failed("the server sent what is no message")
        if len(data) < begin + length:
            return None
        kind, content = data[0] & 0x0F, bytes(data[begin : begin + length])
        del data[: begin + length]
        return kind, content


def _send(connection: socket.socket, kind: int, content: bytes) -> None:
    size = len(content)
    head = bytes([0x80 | kind])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 1 << 16:
        head += bytes([0x80 | 126]) + struct.pack(">H", size)
    else:
        head += bytes([0x80 | 127]) + struct.pack(">Q", size)
    mask = secrets.token_bytes(4)
    whole = int.from_bytes(content, "big") ^ int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    connection.sendall(head + mask + whole.to_bytes(size, "big"))


def _pump(connection: socket.socket, frames: _Frames, source: int, sink: int) -> None:
    poll = select.poll()
    poll.register(source, select.POLLIN)
    poll.register(connection, select.POLLIN)
    while True:
        if not _take_all(connection, frames, sink):
            return
        buffered = isinstance(connection, ssl.SSLSocket) and connection.pending()
        for fd, _ in poll.poll(0 if buffered else None) or [(connection.fileno(), 0)]:
            if fd == source:
                data = os.read(source, PIECE)
                if not data:
                    poll.unregister(source)
                # An empty message: nothing more will come from here.
                _send(connection, _BINARY, data)
            else:
                data = connection.recv(PIECE)
                if not data:
                    return
                frames.feed(data)


def _take_all(connection: socket.socket, frames: _Frames, sink: int) -> bool:
    """Deal with all whole frames; gives false after the last one."""
    while (frame := frames.take()) is not None:
        kind, content = frame
        if kind == _CLOSE:
            code = int.from_bytes(content[:2], "big")
            if code not in (0, 1000):
                raise Conflict(content[2:].decode("utf-8", "replace") or f"closed with {code}")
            return False
        if kind == _PING:
            _send(connection, _PONG, content)
        elif kind in (_BINARY, _CONTINUED, _TEXT):
            while content:
                content = content[os.write(sink, content) :]
    return True
