"""The user's stdin, stdout and stderr, without blocking and without changing them for others.

O_NONBLOCK belongs to the open file, which the parent shell shares, so it is never set on it.
A pipe or a terminal is opened a second time through /proc, which gives an open file of our own;
a socket takes the flag with each call; a regular file or /dev/null does not block for long.
Where the second opening is not allowed (a pipe of another user) small pieces are moved, and
only after poll(2) said that there is room.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum

from mayfly.engine.session.terminal import foreground

PIECE = 256 << 10
"""Bytes moved at once."""
PIPE_PIECE = 4096
"""A pipe that poll calls writable takes so much (PIPE_BUF) without blocking."""
TERMINAL_PIECE = 256
_PTMX = os.makedev(5, 2)


class Manner(Enum):
    """How a descriptor is used."""

    PLAIN = "regular file or simple device"
    OWN = "opened a second time, non-blocking"
    SOCKET = "socket"
    SHARED = "blocking, shared with others"


@dataclass(frozen=True, slots=True, kw_only=True)
class Private:
    """A descriptor of our own for what the user gave us."""

    fd: int
    manner: Manner
    piece: int
    terminal: bool


def open_private(fd: int, *, writing: bool) -> Private | None:
    """Get a descriptor of our own; ``None`` when the user's is closed, or cannot be read."""
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    wrong = os.O_RDONLY if writing else os.O_WRONLY
    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == wrong:
        # To poll a pipe for what its end does not do would wait for ever; to write says EBADF.
        if not writing:
            return None
        return Private(fd=_duplicate(fd), manner=Manner.PLAIN, piece=PIECE, terminal=False)
    mode, terminal = status.st_mode, os.isatty(fd)
    if stat.S_ISSOCK(mode):
        return Private(fd=_duplicate(fd), manner=Manner.SOCKET, piece=PIECE, terminal=False)
    if not terminal and not stat.S_ISFIFO(mode):
        return Private(fd=_duplicate(fd), manner=Manner.PLAIN, piece=PIECE, terminal=False)
    own = _open_again(fd, status, writing=writing)
    if own is not None:
        return Private(fd=own, manner=Manner.OWN, piece=PIECE, terminal=terminal)
    piece = PIECE if not writing else TERMINAL_PIECE if terminal else PIPE_PIECE
    return Private(fd=_duplicate(fd), manner=Manner.SHARED, piece=piece, terminal=terminal)


def _duplicate(fd: int) -> int:
    # Above 2, lest a closed stderr be taken for the port by somebody's print.
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)


def _open_again(fd: int, status: os.stat_result, *, writing: bool) -> int | None:
    # To open /dev/ptmx again would make another terminal.
    if status.st_rdev == _PTMX:
        return None
    flags = (os.O_WRONLY if writing else os.O_RDONLY) | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        own = os.open(f"/proc/self/fd/{fd}", flags)
    except OSError:
        return None
    again = os.fstat(own)
    if (again.st_dev, again.st_ino, again.st_rdev) == (
        status.st_dev,
        status.st_ino,
        status.st_rdev,
    ):
        return own
    os.close(own)
    return None


def _read(end: Private, limit: int) -> bytes:
    if end.manner is not Manner.SOCKET:
        return os.read(end.fd, limit)
    with socket.socket(fileno=os.dup(end.fd)) as connection:
        return connection.recv(limit, socket.MSG_DONTWAIT)


def _write(end: Private, data: memoryview) -> int:
    if end.manner is not Manner.SOCKET:
        return os.write(end.fd, data)
    with socket.socket(fileno=os.dup(end.fd)) as connection:
        return connection.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


class Input:
    """Standard input; ``fd`` is to be polled while it is wanted."""

    def __init__(self, fd: int) -> None:
        self._end = open_private(fd, writing=False)
        self.ended = self._end is None
        self.terminal = self._end is not None and self._end.terminal

    @property
    def fd(self) -> int:
        """The descriptor, or -1."""
        return self._end.fd if self._end else -1

    def read(self, limit: int) -> bytes:
        """Give some bytes; none when there are none just now, or (``ended``) no more."""
        if self._end is None or self.ended:
            return b""
        try:
            data = _read(self._end, min(limit, self._end.piece))
        except BlockingIOError:
            return b""
        except OSError as error:
            # EIO of a terminal: we are in the background, and may read later, or it hung up.
            later = error.errno == errno.EIO and self.terminal and not foreground(self._end.fd)
            self.ended = not later
            return b""
        self.ended = not data
        return data

    def stop(self) -> None:
        """Read no more."""
        self.ended = True

    def close(self) -> None:
        """Let go of it; the user's own descriptor stays as it was."""
        self.ended = True
        if self._end is not None:
            os.close(self._end.fd)
            self._end = None


class Output:
    """Standard output or error, with what waits for its reader."""

    def __init__(self, fd: int) -> None:
        self._end = open_private(fd, writing=True)
        self._waiting = bytearray()
        self.terminal = self._end is not None and self._end.terminal
        self.broken: OSError | None = None
        """Why nothing more can be written."""

    @property
    def fd(self) -> int:
        """The descriptor, or -1."""
        return self._end.fd if self._end else -1

    @property
    def waiting(self) -> int:
        """Bytes that the reader did not take yet."""
        return len(self._waiting)

    def write(self, data: bytes) -> int:
        """Take bytes; gives how many were delivered. A closed stdout is like /dev/null."""
        if self.broken is not None:
            return 0
        if self._end is None:
            return len(data)
        if self._waiting or self._end.manner is Manner.SHARED:
            self._waiting += data
            return 0
        done = self._push(memoryview(data))
        if self.broken is None:
            self._waiting += data[done:]
        return done

    def flush(self) -> int:
        """Go on, after poll said that there is room; gives how many bytes were delivered."""
        if not self._waiting:
            return 0
        with memoryview(self._waiting) as view:
            done = self._push(view)
        del self._waiting[:done]
        if self.broken is not None:
            self._waiting.clear()
        return done

    def drop(self) -> int:
        """Forget what waits; gives how much it was."""
        count = len(self._waiting)
        self._waiting.clear()
        return count

    def close(self) -> None:
        """Let go of it; the user's own descriptor stays as it was."""
        if self._end is not None:
            with suppress(OSError):
                os.close(self._end.fd)
            self._end = None

    def _push(self, view: memoryview) -> int:
        end, done = self._end, 0
        while end is not None and done < len(view):
            try:
                done += _write(end, view[done : done + end.piece])
            except BlockingIOError:
                break
            except OSError as error:
                # Not the error itself: its traceback would keep hold of the buffer.
                self.broken = OSError(error.errno, error.strerror)
                break
            if end.manner is Manner.SHARED:
                break
        return done
