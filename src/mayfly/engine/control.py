"""The host's end of a machine's control port: one request, one answer."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable
from typing import Any

from mayfly.engine.session.notes import printable
from mayfly.errors import Failed, Unavailable
from mayfly.guest.framing import (
    NONCE_LENGTH,
    PROTOCOL,
    Frame,
    FrameError,
    Kind,
    Parser,
    pack_message,
    pack_sync,
)

ANSWER_LIMIT = 1 << 20
"""Longest message accepted from a guest, in bytes."""
TICK_S = 1.0

Tick = Callable[[], None]
"""Called about every second of a wait; may raise to end it."""


class Control:
    """A conversation with the agent; ``gone`` is a descriptor that is readable when QEMU ended."""

    def __init__(self, connection: socket.socket, gone: int, *, tick: Tick | None = None) -> None:
        self._socket = connection
        self._gone = gone
        self._tick = tick
        self._parser = Parser(message_limit=ANSWER_LIMIT)
        self._nonce = b""
        self._frames: list[Frame] = []
        self._last_id = 0

    def close(self) -> None:
        """End the conversation; the agent waits for the next."""
        self._socket.close()

    def begin(self) -> None:
        """Send the SYNC; the agent may not even be there yet."""
        self._nonce = os.urandom(NONCE_LENGTH)
        self._send(pack_sync(self._nonce))

    def hello(self, *, timeout_s: float, tick: Tick | None = None) -> dict[str, Any]:
        """Wait for the agent's greeting, calling ``tick``, if not the usual one, meanwhile.

        Raises ``Unavailable`` when none came in time, ``Failed`` when it speaks another protocol.
        """
        deadline = time.monotonic() + timeout_s
        frame = self._next(deadline, "its greeting", tick)
        while frame.kind is not Kind.SYNC or frame.payload != self._nonce:
            frame = self._next(deadline, "its greeting", tick)
        message = self._next(deadline, "its greeting", tick).message
        oldest, newest = message.get("protocol_min"), message.get("protocol")
        if message.get("type") != "hello" or not isinstance(newest, int):
            raise Failed(f"the agent in the machine greeted with {printable(str(message))}")
        if not isinstance(oldest, int) or not oldest <= PROTOCOL <= newest:
            raise Failed(f"the agent speaks protocols {oldest} to {newest}, this host {PROTOCOL}")
        return message

    def send(self, request: dict[str, Any]) -> int:
        """Send a request without waiting; gives the id to ask ``answer`` for."""
        self._last_id += 1
        self._send(pack_message({**request, "id": self._last_id}))
        return self._last_id

    def answer(self, number: int, what: str, *, timeout_s: float) -> dict[str, Any]:
        """Wait for the answer to a request; raises ``Failed`` with the agent's reason."""
        deadline = time.monotonic() + timeout_s
        while True:
            message = self._next(deadline, what).message
            if message.get("id") == number:
                break
        if message.get("type") != "ok":
            reason = printable(str(message.get("reason", message)), 500)
            raise Failed(f"the agent in the machine could not do '{what}': {reason}")
        return message

    def request(self, request: dict[str, Any], *, timeout_s: float = 60.0) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        return self.answer(self.send(request), request["type"], timeout_s=timeout_s)

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise Failed(f"the machine's control port is closed: {error.strerror}") from error

    def _next(self, deadline: float, what: str, tick: Tick | None = None) -> Frame:
        tick = tick or self._tick
        while not self._frames:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise Unavailable(f"the agent in the machine did not send {what} in time")
            port = self._socket.fileno()
            patience = min(remaining, TICK_S) if tick else remaining
            ready = select.select([port, self._gone], [], [], patience)[0]
            if port in ready:
                self._receive()
            elif self._gone in ready:
                raise Failed(f"QEMU ended before the agent sent {what}")
            if tick is not None and not self._frames:
                tick()
        return self._frames.pop(0)

    def _receive(self) -> None:
        try:
            data = self._socket.recv(65536)
        except OSError as error:
            raise Failed(f"the machine's control port broke: {error.strerror}") from error
        if not data:
            raise Failed("QEMU closed the machine's control port")
        try:
            self._frames += self._parser.feed(data)
        except FrameError as error:
            raise Failed(f"the machine's control port carries nonsense: {error}") from error
