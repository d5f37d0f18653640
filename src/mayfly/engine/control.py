"""The host's end of a machine's control port: one request, one answer."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable
from enum import Enum
from typing import Any

from mayfly.engine.readable import readable
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
READ_BYTES = 1 << 16
LOOK_BYTES = 1 << 12
"""What is read at a look: a guest that talks without end does not keep us from all else."""
UNASKED_MOST = 10_000
"""Messages that nobody waits for, since the last request: more are a flood."""
TICK_S = 1.0

Tick = Callable[[], None]
"""Called about every second of a wait; may raise to end it."""


class Step(Enum):
    """How far a conversation has come."""

    STRANGE = "strange"
    """All that is heard was said to somebody else."""
    MET = "met"
    GREETED = "greeted"


class Control:
    """A conversation with the agent; ``gone`` is a descriptor that is readable when QEMU ended.

    ``begun``: the agent has greeted another process, which left its end of the conversation to
    this one.
    """

    def __init__(
        self, connection: socket.socket, gone: int, *, tick: Tick | None = None, begun: bool = False
    ) -> None:
        self._socket = connection
        self._gone = gone
        self._tick = tick
        self._parser = Parser(synced=begun, message_limit=ANSWER_LIMIT)
        self._nonce = b""
        self._step = Step.GREETED if begun else Step.STRANGE
        self._greeting: dict[str, Any] = {}
        self._answers: dict[int, dict[str, Any]] = {}
        self._owed: set[int] = set()
        self._broken = ""
        self._unasked = 0
        # Far from those of whoever spoke before: an answer that it did not wait for is not ours.
        self._last_id = secrets.randbits(40) if begun else 0

    def close(self) -> None:
        """End the conversation; the agent waits for the next."""
        self._socket.close()

    def fileno(self) -> int:
        """Give the descriptor to wait on for answers."""
        return self._socket.fileno()

    def begin(self) -> None:
        """Send the SYNC; the agent may not even be there yet."""
        self._nonce = os.urandom(NONCE_LENGTH)
        self._step = Step.STRANGE
        self._greeting = {}
        self._owed.clear()
        self._answers.clear()
        self._broken = ""
        self._unasked = 0
        self._send(pack_sync(self._nonce))

    def hello(self, *, timeout_s: float, tick: Tick | None = None) -> dict[str, Any]:
        """Wait for the agent's greeting, calling ``tick``, if not the usual one, meanwhile.

        Raises ``Unavailable`` when none came in time, ``Failed`` when it speaks another protocol.
        """
        deadline = time.monotonic() + timeout_s
        while not self._greeting:
            self._wait(deadline, "its greeting", tick)
        return self._greeting

    @property
    def features(self) -> frozenset[str] | None:
        """What the agent said that it can do; None when it greeted another process."""
        if not self._greeting:
            return None
        named = self._greeting.get("features")
        return frozenset(map(str, named)) if isinstance(named, list) else frozenset()

    def send(self, request: dict[str, Any]) -> int:
        """Send a request without waiting; gives the id to ask ``answer`` for."""
        self._last_id += 1
        self._unasked = 0
        self._send(pack_message({**request, "id": self._last_id}))
        self._owed.add(self._last_id)
        return self._last_id

    def answer(self, number: int, what: str, *, timeout_s: float) -> dict[str, Any]:
        """Wait for the answer to a request; raises ``Failed`` with the agent's reason."""
        deadline = time.monotonic() + timeout_s
        try:
            while number not in self._answers:
                self._wait(deadline, what)
        finally:
            self._owed.discard(number)
        message = self._answers.pop(number)
        if message.get("type") != "ok":
            reason = printable(str(message.get("reason", message)), 500)
            raise Failed(f"the agent in the machine could not do '{what}': {reason}")
        return message

    def arrived(self, number: int) -> bool:
        """Read what is there without waiting; tell whether ``answer`` would return, or raise, now.

        True also when the machine is gone: ``answer`` has the reason.
        """
        try:
            if number not in self._answers and readable([self.fileno()], 0):
                self._receive(LOOK_BYTES)
        except Failed:
            return True
        return number in self._answers or bool(readable([self._gone], 0))

    def request(self, request: dict[str, Any], *, timeout_s: float = 60.0) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        return self.answer(self.send(request), request["type"], timeout_s=timeout_s)

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise Failed(f"the machine's control port is closed: {error.strerror}") from error

    def _wait(self, deadline: float, what: str, tick: Tick | None = None) -> None:
        tick = tick or self._tick
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise Unavailable(f"the agent in the machine did not send {what} in time")
        ready = readable([self.fileno(), self._gone], min(remaining, TICK_S) if tick else remaining)
        if self.fileno() in ready:
            self._receive()
        elif self._gone in ready:
            raise Failed(f"QEMU ended before the agent sent {what}")
        elif tick is not None:
            tick()

    def _receive(self, size: int = READ_BYTES) -> None:
        if self._broken:
            raise Failed(self._broken)
        try:
            data = self._socket.recv(size)
        except OSError as error:
            raise Failed(f"the machine's control port broke: {error.strerror}") from error
        if not data:
            raise Failed("QEMU closed the machine's control port")
        try:
            for frame in self._parser.feed(data):
                self._take(frame)
            if self._unasked > UNASKED_MOST:
                raise FrameError("messages without end")
        except FrameError as error:
            # Nothing that follows can be told from nonsense, and nothing of it is kept.
            self._broken = f"the machine's control port carries nonsense: {error}"
            self._parser.reset()
            raise Failed(self._broken) from error

    def _take(self, frame: Frame) -> None:
        """Keep what somebody waits for, and nothing else: a guest may talk without end."""
        if self._step is Step.STRANGE:
            if frame.kind is Kind.SYNC and frame.payload == self._nonce:
                self._step = Step.MET
        elif self._step is Step.MET:
            self._step = Step.GREETED
            self._greeting = _checked_greeting(frame.message)
        else:
            number = frame.message.get("id")
            if isinstance(number, int) and number in self._owed:
                self._answers[number] = frame.message
            else:
                self._unasked += 1


def _checked_greeting(message: dict[str, Any]) -> dict[str, Any]:
    oldest, newest = message.get("protocol_min"), message.get("protocol")
    if message.get("type") != "hello" or not isinstance(newest, int):
        raise Failed(f"the agent in the machine greeted with {printable(str(message))}")
    if not isinstance(oldest, int) or not oldest <= PROTOCOL <= newest:
        raise Failed(f"the agent speaks protocols {oldest} to {newest}, this host {PROTOCOL}")
    return message
