"""How clients and the host service speak: one packet is one JSON object, descriptors beside it.

The socket is a unix SOCK_SEQPACKET one: packets keep their borders, so that nothing has to be put
together, and a caller is known by the kernel's word alone. ``docs/reference/host-protocol.md``
lists the requests.
"""

from __future__ import annotations

import array
import json
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from mayfly import errors
from mayfly.errors import Failed, Invalid, MayflyError

PROTOCOL = 1
OLDEST = 1
"""Oldest protocol whose requests are understood."""
PACKET_BYTES = 1 << 16
PACKET_FDS = 8
NESTING = 20
"""Of objects and lists in each other: what goes deeper is no message of ours."""

_ERRORS = {kind.__name__: kind for kind in errors.EXIT_AND_HTTP}
_Message = dict[str, Any]


class Garbled(Exception):
    """A packet that is no request: too long, no JSON, no object, too many descriptors."""


def send(connection: socket.socket, message: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
    """Send one packet; raises ``OSError`` when the other side is gone or takes nothing."""
    data = json.dumps(message).encode()
    if len(data) > PACKET_BYTES:
        raise Invalid(f"a message of {len(data)} bytes is more than a packet holds")
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    connection.sendmsg([data], rights)


def receive(connection: socket.socket) -> tuple[_Message, list[int]] | None:
    """Take one packet and its descriptors; None at the end of the connection.

    Raises ``Garbled`` (any descriptors are closed again), ``BlockingIOError`` when there is none.
    """
    try:
        data, rights, flags = _packet(connection)
    except ConnectionError:
        return None
    fds = array.array("i")
    for level, kind, content in rights:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    if not data and not fds:
        return None
    try:
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise Garbled("the packet is too long, or has too many descriptors")
        return _parsed(data), list(fds)
    except Garbled:
        for fd in fds:
            os.close(fd)
        raise


def _packet(connection: socket.socket) -> tuple[bytes, list[tuple[int, int, bytes]], int]:
    space = socket.CMSG_SPACE(PACKET_FDS * array.array("i").itemsize)
    try:
        data, rights, flags, _ = connection.recvmsg(PACKET_BYTES, space, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        # The other side closed before it had read all; what it said before that is still there.
        data, rights, flags, _ = connection.recvmsg(PACKET_BYTES, space, socket.MSG_CMSG_CLOEXEC)
    return data, rights, flags


def _parsed(data: bytes) -> _Message:
    try:
        message = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Garbled(f"no JSON: {error}") from error
    if not isinstance(message, dict):
        raise Garbled("no JSON object")
    # Python reads more than it can write, or show in an error, elsewhere.
    if _is_deep(message):
        raise Garbled(f"objects and lists are nested more than {NESTING} times")
    return message


def _is_deep(message: _Message) -> bool:
    level: list[Any] = [message]
    for _ in range(NESTING):
        inner = [each.values() if isinstance(each, dict) else each for each in level]
        level = [one for values in inner for one in values if isinstance(one, dict | list)]
        if not level:
            return False
    return True


def error_message(error: MayflyError) -> _Message:
    """Give the message for an error; as JSON it is short enough for a packet, whatever is in it."""
    return {
        "type": "error",
        "kind": type(error).__name__,
        "message": error.message[:2000],
        "hint": error.hint[:1000],
    }


def error_of(message: Mapping[str, Any]) -> MayflyError:
    """Give the error that a message stands for."""
    kind = _ERRORS.get(str(message.get("kind")), Failed)
    return kind(str(message.get("message", "?")), hint=str(message.get("hint", "")))
