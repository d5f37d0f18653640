"""A port to the host: conversations, frames and back-pressure over a non-blocking descriptor.

virtio-serial gives at most 4 KiB per read and takes at most 32 KiB per write, and every call is
slow under emulation: ``readv`` and ``writev`` over pieces of just these sizes move 256 KiB per
call, since the kernel repeats the driver's read or write for each piece.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from typing import Protocol

from mayfly.guest.framing import HEADER, Frame, FrameError, Kind, Parser, pack_sync
from mayfly.guest.lines import Line, Sort
from mayfly.guest.loop import READABLE, WRITABLE, Loop

ROOM = 256 << 10
READ_PIECE = 4 << 10
WRITE_PIECE = 32 << 10
PIECES = 512
"""Most pieces of one ``writev``; the kernel's limit is 1024."""

STALL_S = 0.1
"""Old kernels do not tell when a full port has room again, so we look."""
GRACE_S = 0.5
RECONNECT_S = 0.05


class Talk(Protocol):
    """Who holds the conversations of a port."""

    def begin(self) -> None:
        """A conversation has begun."""

    def frame(self, frame: Frame) -> None:
        """A frame came; ``FrameError`` ends the conversation."""

    def lost(self) -> None:
        """The conversation is over: the host is gone, or sent nonsense."""


class Port:
    """One port, which outlives its conversations."""

    def __init__(self, loop: Loop, line: Line) -> None:
        self.talk: Talk | None = None
        self.gone = False
        self._loop = loop
        self._line = line
        self._fd = -1
        self._parser = Parser()
        self._queue: deque[bytearray | memoryview] = deque()
        self._readable = self._writable = False
        self._open = self._proven = False
        self._stall = self._grace = 0
        self._in = memoryview(bytearray(ROOM))
        self._in_pieces = [self._in[at : at + READ_PIECE] for at in range(0, ROOM, READ_PIECE)]
        self._out = memoryview(bytearray(HEADER.size + ROOM))
        self._out_body = self._out[HEADER.size :]
        self._connect()
        loop.employ(self.pump)
        loop.finish_with(self.flush)

    # --- sending ---

    @property
    def idle(self) -> bool:
        """Whether everything sent has left."""
        return not self._queue

    def send(self, frame: bytes) -> None:
        """Queue a small frame; without a conversation it is dropped."""
        if not self._open:
            return
        # Small frames travel together: each write is a trip through the emulator.
        if self._queue and isinstance(self._queue[-1], bytearray):
            self._queue[-1] += frame
        else:
            self._queue.append(bytearray(frame))

    def relay(self, fd: int, stream: int, limit: int) -> int:
        """Read once from ``fd`` straight into a DATA frame and send it; 0 at the end of file.

        Only while ``idle``: there is one buffer.
        """
        count = os.readv(fd, [self._out_body[:limit]])
        if count and self._open:
            HEADER.pack_into(self._out, 0, Kind.DATA, stream, 0, count)
            self._queue.append(self._out[: HEADER.size + count])
            self.flush()
        return count

    def flush(self) -> None:
        """Write what is queued, as far as the port takes it."""
        while self._queue and self._writable:
            head = self._queue[0]
            if isinstance(head, bytearray):
                # From here on nothing may be added to it.
                head = self._queue[0] = memoryview(head)
            end = min(len(head), PIECES * WRITE_PIECE)
            pieces = [head[at : at + WRITE_PIECE] for at in range(0, end, WRITE_PIECE)]
            try:
                count = os.writev(self._fd, pieces)
            except BlockingIOError:
                self._writable = False
                self._loop.cancel(self._stall)
                self._stall = self._loop.after(STALL_S, self._look_again)
                return
            except OSError:
                self._hung_up()
                return
            self._proven = True
            if count == len(head):
                self._queue.popleft()
            else:
                self._queue[0] = head[count:]

    def _look_again(self) -> None:
        self._writable = self._fd >= 0

    # --- receiving ---

    def pump(self) -> bool:
        """Do one round of work; true when there may be more."""
        # What was queued before must be gone when sessions ask whether we are idle.
        self.flush()
        return self._readable and self._receive()

    def _receive(self) -> bool:
        taken = 0
        while taken < ROOM:
            try:
                count = os.readv(self._fd, self._in_pieces)
            except BlockingIOError:
                self._readable = False
                return False
            except OSError:
                count = 0
            if not count:
                self._hung_up()
                return False
            self._take(self._in[:count])
            if not self._readable:
                return False
            taken += count
        return True

    def _take(self, data: memoryview | bytes) -> None:
        while True:
            frames = self._parser.feed(data)
            try:
                for frame in frames:
                    if frame.kind is Kind.SYNC:
                        self._begin(frame.payload)
                    elif self.talk is not None:
                        self.talk.frame(frame)
                return
            except FrameError:
                # The next SYNC may be here already, behind the nonsense.
                frames.close()
                self._parser.resync()
                self._end()
                data = b""

    # --- conversations ---

    def _begin(self, nonce: bytes) -> None:
        self._end()
        self._loop.cancel(self._grace)
        self._open = True
        self._proven = False
        self.send(pack_sync(nonce))
        if self.talk is not None:
            self.talk.begin()

    def _end(self) -> None:
        # A frame that was cut in two here is no harm: the host skips all until its own nonce.
        self._queue.clear()
        if self._open:
            self._open = False
            if self.talk is not None:
                self.talk.lost()

    def _changed(self, events: int) -> None:
        if events & READABLE:
            self._readable = True
        if events & WRITABLE:
            self._writable = True

    def _hung_up(self) -> None:
        self._readable = False
        if self._line.sort not in (Sort.DEVICE, Sort.VISIT) or self._visit_is_over():
            self._drop()
        elif self._open and not self._proven:
            # Just after a restore the host's first bytes may overtake the news that it is there.
            self._loop.cancel(self._grace)
            self._grace = self._loop.after(GRACE_S, self._judge)
        else:
            self._parser.reset()
            self._end()

    def _visit_is_over(self) -> bool:
        # One that has not begun yet looks the same as long as the device is there: its host comes.
        there = os.path.exists(self._line.path)
        return self._line.sort is Sort.VISIT and (self._proven or not there)

    def _judge(self) -> None:
        if not self._proven:
            self._parser.reset()
            self._end()

    # --- the descriptor ---

    def _drop(self) -> None:
        self._loop.forget(self._fd)
        os.close(self._fd)
        self._fd = -1
        self._writable = False
        self._parser.reset()
        self._end()
        if self._line.sort is Sort.SOCKET:
            self._loop.after(RECONNECT_S, self._reconnect)
        else:
            self.gone = True
            self._loop.dismiss(self.pump)
            self._loop.finish_without(self.flush)

    def _reconnect(self) -> None:
        with contextlib.suppress(OSError):
            self._connect()
            return
        self._loop.after(RECONNECT_S, self._reconnect)

    def _connect(self) -> None:
        self._fd = self._line.open()
        self._readable = self._writable = True
        self._loop.watch(self._fd, self._changed)
