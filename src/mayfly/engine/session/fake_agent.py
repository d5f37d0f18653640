"""A scripted guest: the other end of a session, in a thread, for tests without a machine."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from mayfly.guest.framing import (
    INITIAL_CREDIT,
    Frame,
    Kind,
    Parser,
    Stream,
    credit_of,
    pack,
    pack_credit,
    pack_message,
    pack_sync,
)
from mayfly.guest.tree import Entry, EntryParser, Type, pack_entry

PIECE = 64 << 10
WAIT_S = 20.0


class Hung(Exception):
    """The host sent nothing for so long that the script cannot go on."""


class FakeAgent:
    """Says what its script wants it to say; counts credit as the real one does."""

    def __init__(self, port: socket.socket) -> None:
        self.port = port
        port.settimeout(WAIT_S)
        self._parser = Parser()
        self._frames: deque[Frame] = deque()
        self.room = dict.fromkeys((Stream.STDOUT, Stream.STDERR, Stream.FILES_OUT), INITIAL_CREDIT)
        self.closed: set[Stream] = set()
        self.ended: set[Stream] = set()
        self.received = {Stream.STDIN: bytearray(), Stream.FILES_IN: bytearray()}
        self.messages: list[dict[str, Any]] = []
        self.generous = True
        """Whether credit is given back as soon as something comes."""

    # --- what the host sends ---------------------------------------------------------------------

    def next(self) -> Frame:
        """Wait for one frame, and take note of it."""
        while not self._frames:
            try:
                data = self.port.recv(1 << 18)
            except TimeoutError as error:
                raise Hung(f"nothing came; messages so far: {self.messages}") from error
            except ConnectionResetError:
                data = b""
            if not data:
                raise EOFError("the host closed the port")
            self._frames += self._parser.feed(data)
        frame = self._frames.popleft()
        self._note(frame)
        return frame

    def _note(self, frame: Frame) -> None:
        if frame.kind is Kind.MESSAGE:
            self.messages.append(frame.message)
        elif frame.kind is Kind.CREDIT:
            self.room[Stream(frame.stream)] += credit_of(frame.payload)
        elif frame.kind is Kind.CLOSE:
            self.closed.add(Stream(frame.stream))
        elif frame.kind is Kind.EOF:
            self.ended.add(Stream(frame.stream))
        elif frame.kind is Kind.DATA:
            self.received[Stream(frame.stream)] += frame.payload
            if self.generous and frame.payload:
                self.raw(pack_credit(frame.stream, len(frame.payload)))

    def until(self, done: Callable[[], bool]) -> None:
        """Take frames until something is so."""
        while not done():
            self.next()

    def message(self, kind: str) -> dict[str, Any]:
        """Wait for the next message, which must be of this type."""
        self.until(lambda: bool(self.messages))
        message = self.messages.pop(0)
        if message["type"] != kind:
            raise Hung(f"expected '{kind}', got {message}")
        return message

    def files(self) -> list[tuple[Entry, bytes]]:
        """Take the whole work directory."""
        self.until(lambda: Stream.FILES_IN in self.ended)
        entries: list[tuple[Entry, bytes]] = []
        for piece in EntryParser().feed(bytes(self.received[Stream.FILES_IN])):
            if isinstance(piece, Entry):
                entries.append((piece, b""))
            else:
                entries[-1] = (entries[-1][0], entries[-1][1] + piece)
        return entries

    # --- what the agent sends --------------------------------------------------------------------

    def raw(self, data: bytes) -> None:
        """Send bytes as they are; a host that has gone is no surprise."""
        try:
            self.port.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise EOFError("the host closed the port") from error

    def say(self, kind: str, **fields: Any) -> None:
        """Send a message."""
        self.raw(pack_message({"type": kind, **fields}))

    def sync(self) -> None:
        """Answer the host's SYNC."""
        self.raw(pack_sync(self.next().payload))

    def request(self) -> dict[str, Any]:
        """Begin the conversation; gives the host's request."""
        self.sync()
        return self.message("start")

    def start(self) -> dict[str, Any]:
        """Begin, take the work directory if there is one, and have the job running."""
        request = self.request()
        if request["workdir"]:
            self.files()
        self.say("started", pid=4711)
        return request

    def run(self) -> None:
        """Start, and wait until the host knows: it then ends a stdin that is empty."""
        self.start()
        self.until(lambda: Stream.STDIN in self.ended)

    def write(self, stream: Stream, data: bytes) -> bool:
        """Send bytes of a stream, as credit allows; ``False`` when the host wants no more."""
        view = memoryview(data)
        while view:
            self.until(lambda: self.room[stream] > 0 or stream in self.closed)
            if stream in self.closed:
                return False
            piece = view[: min(self.room[stream], PIECE)]
            self.raw(pack(Kind.DATA, stream, bytes(piece)))
            self.room[stream] -= len(piece)
            view = view[len(piece) :]
        return True

    def eof(self, *streams: Stream) -> None:
        """End streams."""
        for stream in streams:
            self.raw(pack(Kind.EOF, stream))

    def exit(self, code: int | None = 0, signal: str | None = None) -> None:
        """End the job, its output first."""
        self.eof(Stream.STDOUT, Stream.STDERR)
        self.say("exit", code=code, signal=signal)

    def send_files(self, *entries: tuple[Entry, bytes]) -> None:
        """Send what the job changed, to the last entry and the end."""
        for entry, content in (*entries, (Entry(type=Type.END), b"")):
            if not self.write(Stream.FILES_OUT, pack_entry(entry) + content):
                return
        self.eof(Stream.FILES_OUT)
        self.say("bye")


@contextmanager
def playing(script: Callable[[FakeAgent], object]) -> Iterator[socket.socket]:
    """Run a script at the other end of the port that this gives; its errors come at the end.

    The script may be cut short by the host: the end of the port is no error.
    """
    ours, theirs = socket.socketpair()
    with ThreadPoolExecutor(1) as pool, theirs:
        with ours:
            future = pool.submit(_play, script, theirs)
            yield ours
        future.result(WAIT_S)


def _play(script: Callable[[FakeAgent], object], port: socket.socket) -> None:
    try:
        script(FakeAgent(port))
    except EOFError:
        return
    finally:
        port.close()
