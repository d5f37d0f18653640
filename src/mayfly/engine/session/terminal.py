"""The user's terminal: raw while the job has it, and its own self again whatever happens."""

from __future__ import annotations

import os
import signal
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

DEFAULT_SIZE = (24, 80)
_SIZE_LIMIT = 1 << 15


class Terminal:
    """The terminal on a descriptor; as a context it is restored at the end."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._saved: list[Any] | None = None

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *unused: object) -> None:
        self.leave_raw()

    @property
    def raw(self) -> bool:
        """Whether it is in raw mode now."""
        return self._saved is not None

    def enter_raw(self) -> None:
        """Hand every key to the job."""
        if self._saved is not None:
            return
        with suppress(termios.error), _undisturbed():
            saved = termios.tcgetattr(self._fd)
            tty.setraw(self._fd, termios.TCSANOW)
            self._saved = saved

    def renew(self) -> None:
        """Set raw mode again after a stop: the shell set its own meanwhile."""
        if self._saved is not None:
            with suppress(termios.error), _undisturbed():
                tty.setraw(self._fd, termios.TCSANOW)

    def leave_raw(self) -> None:
        """Give it back as it was."""
        saved, self._saved = self._saved, None
        if saved is not None:
            # TCSANOW: to wait for output that the user has stopped could take for ever.
            with suppress(termios.error), _undisturbed():
                termios.tcsetattr(self._fd, termios.TCSANOW, saved)

    @contextmanager
    def cooked(self) -> Iterator[None]:
        """Leave raw mode for a message of our own."""
        was_raw = self.raw
        self.leave_raw()
        try:
            yield
        finally:
            if was_raw:
                self.enter_raw()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Hold SIGTTOU back, which would stop us if we are in the background by now."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def foreground(fd: int) -> bool:
    """Whether we may read from a terminal; in the background that would stop us."""
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        # Not the terminal that controls us: nobody stops us.
        return True


def window_size(*descriptors: int) -> tuple[int, int]:
    """Give rows and columns of the first descriptor that is a terminal."""
    for descriptor in descriptors:
        with suppress(OSError):
            columns, rows = os.get_terminal_size(descriptor)
            if 0 < rows < _SIZE_LIMIT and 0 < columns < _SIZE_LIMIT:
                return rows, columns
    return DEFAULT_SIZE
