"""One connection to the service: who is at its other end, and what it waits for or holds."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mayfly.errors import MayflyError
from mayfly.host import protocol
from mayfly.host.peer import Peer

SEND_BYTES = 1 << 20
"""What a slow reader may leave unread before it is given up."""
ITEMS_BYTES = 1 << 15
"""Of JSON in one packet of a list, unless one item alone is longer."""
TEXT_LENGTH = 5000
"""Characters in one packet: JSON may write twelve bytes for each of them."""
_SO_SNDBUFFORCE = 32


class Caller:
    """A connected client. What is sent to one that has gone is dropped."""

    def __init__(self, connection: socket.socket, peer: Peer) -> None:
        self.connection = connection
        self.peer = peer
        self.gone = False
        self.machine = ""
        """Id of the machine that lives as long as this connection."""
        self.is_site = False
        """Whether it is the site server, which makes and ends machines for users."""
        self.acting = False
        """Whether the site server acts for a user here."""
        self.asking = False
        """Whether a request of it is under way."""
        self.idle_since = time.monotonic()
        connection.setblocking(False)
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, SEND_BYTES)

    @property
    def uid(self) -> int:
        """The uid that the kernel vouches for."""
        return self.peer.uid

    @property
    def is_root(self) -> bool:
        """Whether it may do what only the administrator may."""
        return self.peer.uid == 0

    def act_for(self, peer: Peer) -> None:
        """Be another user from here on: for the site server, whose process it stays."""
        self.peer = peer
        self.is_site = False
        self.acting = True

    @property
    def is_idle(self) -> bool:
        """Whether nothing depends on it."""
        return not self.asking and not self.machine

    def tell(self, message: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
        """Send a packet."""
        if self.gone:
            return
        try:
            protocol.send(self.connection, message, fds)
        except OSError:
            # It does not read, or is not there: its end of file is seen by the loop.
            self.gone = True

    def progress(self, text: str) -> None:
        """Say how far its request is."""
        self.tell({"type": "progress", "text": text[:4000]})

    def ok(self, fields: Mapping[str, Any] | None = None, fds: Sequence[int] = ()) -> None:
        """Answer its request."""
        self._answered()
        self.tell({"type": "ok", **(fields or {})}, fds)

    def fail(self, error: MayflyError) -> None:
        """Answer its request with the reason why not."""
        self._answered()
        self.tell(protocol.error_message(error))

    def refuse(self, error: MayflyError) -> None:
        """Say why a packet is no request; what was asked for before is still to be answered."""
        self.tell(protocol.error_message(error))

    def is_reading(self) -> bool:
        """Tell whether it has read most of what it was sent, or is gone."""
        if self.gone:
            return True
        poll = select.poll()
        poll.register(self.connection, select.POLLOUT)
        return bool(poll.poll(0))

    def items(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Answer its request with a list, in as many packets as it takes."""
        batch: list[Mapping[str, Any]] = []
        size = 0
        for item in items:
            length = len(json.dumps(item))
            if batch and size + length > ITEMS_BYTES:
                self.tell({"type": "items", "items": batch})
                batch, size = [], 0
            batch.append(item)
            size += length
        if batch:
            self.tell({"type": "items", "items": batch})
        self.ok()

    def close(self) -> None:
        """End the connection."""
        self.gone = True
        self.connection.close()

    def _answered(self) -> None:
        self.asking = False
        self.idle_since = time.monotonic()


def parts(text: str) -> list[str]:
    """Cut a text into parts that fit into packets."""
    return [text[at : at + TEXT_LENGTH] for at in range(0, len(text), TEXT_LENGTH)]


def open_process(pid: int) -> int | None:
    """Give a pidfd, or None when there is no such process."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None
