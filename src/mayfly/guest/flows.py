"""Byte streams between a process's descriptors and the host, with credit both ways."""

from __future__ import annotations

import array
import fcntl
import os
import select
import termios
from collections import deque
from typing import Protocol

from mayfly.guest.framing import INITIAL_CREDIT, FrameError, Kind, Stream, pack, pack_credit
from mayfly.guest.loop import READABLE, WRITABLE, Loop

CHUNK = 256 << 10
"""Longest DATA frame that we send."""
CREDIT_STEP = 64 << 10
"""Credit is given back in steps, so that small writes cost no frame each."""
CREDIT_LIMIT = 1 << 40
QUIET_S = 0.1
"""A terminal that a daemon holds open is drained when it was quiet for so long."""
TERMINAL_HOLDS = 128 << 10
END_OF_FILE = b"\x04"
"""What a terminal in its usual mode takes for the end of its input."""


class Outlet(Protocol):
    """Where frames go: a port, or nowhere."""

    @property
    def idle(self) -> bool:
        """Whether everything sent has left."""

    def send(self, frame: bytes) -> None:
        """Queue a small frame."""

    def relay(self, fd: int, stream: int, limit: int) -> int:
        """Read once from ``fd`` into a DATA frame; 0 at the end of file."""

    def flush(self) -> None:
        """Let what is queued leave."""


class Sink:
    """An outlet that leads nowhere."""

    idle = True

    def send(self, frame: bytes) -> None:
        """Drop a frame."""

    def relay(self, fd: int, stream: int, limit: int) -> int:
        """Read once from ``fd`` and drop it; 0 at the end of file."""
        del stream
        return len(os.read(fd, limit))

    def flush(self) -> None:
        """Do nothing."""


class Outflow:
    """What a process writes, on its way to the host; never more than the host has room for."""

    def __init__(
        self, loop: Loop, outlet: Outlet, stream: Stream, *, fd: int, terminal: bool = False
    ) -> None:
        self.stream = stream
        self.ended = False
        self._loop = loop
        self._outlet = outlet
        self._fd = fd
        self._terminal = terminal
        self._credit = INITIAL_CREDIT
        self._readable = True
        self._draining = False
        self._rest = CREDIT_LIMIT
        self._quiet = 0
        loop.watch(fd, self._changed)

    def grant(self, count: int) -> None:
        """Take credit from the host."""
        if count > CREDIT_LIMIT - self._credit:
            raise FrameError("too much credit")
        self._credit += count

    def pump(self) -> bool:
        """Send one frame if there is something and room for it; true when there may be more."""
        room = min(self._credit, self._rest, CHUNK)
        if self.ended or not self._readable or not room:
            return False
        try:
            count = self._outlet.relay(self._fd, self.stream, room)
        except BlockingIOError:
            self._readable = False
            self._await_quiet()
            return False
        except OSError:
            # A terminal whose last user is gone reads as EIO.
            count = 0
        self._credit -= count
        if self._draining:
            self._rest -= count
        if not count or not self._rest:
            self.end()
        return True

    def drain(self) -> None:
        """The process has ended: what is written up to now still goes, and then the end.

        Others may hold the descriptor open, so the end of file need not come.
        """
        if self.ended:
            return
        self._draining = True
        self._readable = True
        # A terminal cannot tell what is still on its way to us, but it never holds this much.
        self._rest = TERMINAL_HOLDS if self._terminal else _waiting(self._fd)
        if not self._rest:
            self.end()

    def end(self) -> None:
        """Stop, whatever is left; the host hears of it."""
        if not self.ended:
            self.ended = True
            self._loop.cancel(self._quiet)
            self._loop.forget(self._fd)
            os.close(self._fd)
            self._outlet.send(pack(Kind.EOF, self.stream))

    def _await_quiet(self) -> None:
        if self._draining and self._terminal:
            self._loop.cancel(self._quiet)
            self._quiet = self._loop.after(QUIET_S, self.end)

    def _changed(self, events: int) -> None:
        if events & READABLE:
            self._readable = True


def _waiting(fd: int) -> int:
    """Give the number of bytes in a pipe."""
    count = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return count[0]


class Inflow:
    """What the host sends, on its way to a process; credit goes back as the process's pipe fills.

    Bytes may come before there is a process: they wait, one credit's worth at most.
    """

    def __init__(self, loop: Loop, outlet: Outlet, stream: Stream) -> None:
        self._loop = loop
        self._outlet = outlet
        self._stream = stream
        self._fd = -1
        self._terminal = False
        self._writable = False
        self._chunks: deque[memoryview] = deque()
        self._held = 0
        self._owed = 0
        self._finished = self._closed = self._broken = self._marked = False
        self._line_ended = True

    def attach(self, fd: int, *, terminal: bool = False) -> None:
        """Name the descriptor that the bytes are for; it is ours from now on."""
        self._fd = fd
        self._terminal = terminal
        self._writable = True
        self._loop.watch(fd, self._changed)

    def take(self, payload: bytes) -> None:
        """Take a DATA frame."""
        if self._closed or self._finished or not payload:
            return
        self._held += len(payload)
        if self._held > INITIAL_CREDIT:
            raise FrameError("more bytes than credit")
        self._chunks.append(memoryview(payload))

    def finish(self) -> None:
        """The host has no more: the process sees the end of file after what is waiting."""
        self._finished = True

    def pump(self) -> bool:
        """Write what is waiting, as far as the process takes it; true when there may be more."""
        if self._fd < 0 or not self._writable:
            return False
        try:
            while self._chunks:
                self._write(self._chunks[0])
        except BlockingIOError:
            self._writable = False
        except OSError:
            self._broken = True
        if self._broken:
            self.refuse()
        elif self._finished and not self._chunks:
            return self._end()
        return False

    def _write(self, chunk: memoryview) -> None:
        count = os.write(self._fd, chunk)
        if self._terminal:
            self._line_ended = chunk[count - 1] in b"\r\n"
        if count == len(chunk):
            self._chunks.popleft()
        else:
            self._chunks[0] = chunk[count:]
        if not self._marked:
            self._owed += count
        if self._owed >= CREDIT_STEP:
            self._outlet.send(pack_credit(self._stream, self._owed))
            self._held -= self._owed
            self._owed = 0

    def _end(self) -> bool:
        if not self._terminal:
            self.close()
        elif not self._marked:
            self._marked = True
            # In the midst of a line the first one only delivers the line.
            self._chunks.append(memoryview(END_OF_FILE * (1 if self._line_ended else 2)))
            return True
        return False

    def refuse(self) -> None:
        """Nobody reads any more: the host may stop, and what is still on its way is ignored."""
        if not self._closed:
            self._outlet.send(pack(Kind.CLOSE, self._stream))
            self.close()

    def close(self) -> None:
        """Let go of the descriptor and of what was not delivered."""
        self._closed = True
        self._chunks.clear()
        if self._fd >= 0:
            self._loop.forget(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _changed(self, events: int) -> None:
        if events & WRITABLE:
            self._writable = True
        if events & select.EPOLLERR:
            self._broken = True
