"""The port as a queue of frames out and a source of frames in."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from mayfly.guest.framing import Frame, Parser, pack_sync

RECEIVE = 256 << 10
QUEUE_LIMIT = 256 << 10
"""Bytes that may wait for the machine before no more data is made for it."""
MESSAGE_LIMIT = 64 << 10
"""Longest message taken from an agent."""


class Link:
    """A conversation; bytes before the answer to our SYNC are of an older one, and dropped."""

    def __init__(self, port: socket.socket, nonce: bytes) -> None:
        self._port = port
        self._answer = pack_sync(nonce)
        self._parser = Parser(synced=True, message_limit=MESSAGE_LIMIT)
        self._before = bytearray()
        self._queue = bytearray(self._answer)
        self.synced = False
        self.closed = False
        """The machine's end is gone."""

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._port.fileno()

    @property
    def queued(self) -> int:
        """Bytes that wait to be sent."""
        return len(self._queue)

    @property
    def full(self) -> bool:
        """Whether enough waits."""
        return len(self._queue) >= QUEUE_LIMIT

    def send(self, frame: bytes) -> None:
        """Put a frame into the queue."""
        self._queue += frame

    def flush(self) -> None:
        """Send what the port takes now."""
        while self._queue and not self.closed:
            try:
                with memoryview(self._queue) as view:
                    count = self._port.send(view[:QUEUE_LIMIT])
            except BlockingIOError:
                return
            except OSError:
                # What the machine sent before it ended can still be read.
                self._queue.clear()
                return
            del self._queue[:count]

    def receive(self) -> Iterator[Frame]:
        """Read once, and give the frames that are whole; the first is the answer to our SYNC."""
        try:
            data = self._port.recv(RECEIVE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.closed = True
            return
        yield from self._parser.feed(data if self.synced else self._find_answer(data))

    def _find_answer(self, data: bytes) -> bytes:
        self._before += data
        at = self._before.find(self._answer)
        if at < 0:
            del self._before[: max(0, len(self._before) - len(self._answer) + 1)]
            return b""
        self.synced = True
        rest = bytes(self._before[at:])
        self._before.clear()
        return rest
