"""The user's side of a session: stdin, stdout and stderr, and the terminal they may be."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from mayfly.engine.session.job import Stdio
from mayfly.engine.session.streams import Input, Output
from mayfly.engine.session.terminal import Terminal, foreground, window_size
from mayfly.guest.framing import Stream


class Console:
    """Opened for one session; ``close`` gives everything back as it was."""

    def __init__(self, stdio: Stdio, *, tty: bool | None, report: Callable[[str], None]) -> None:
        with ExitStack() as stack:
            self.input = Input(stdio.stdin)
            stack.callback(self.input.close)
            self.outputs: dict[Stream, Output] = {}
            for stream, fd in ((Stream.STDOUT, stdio.stdout), (Stream.STDERR, stdio.stderr)):
                self.outputs[stream] = Output(fd)
                stack.callback(self.outputs[stream].close)
            both = self.input.terminal and self.outputs[Stream.STDOUT].terminal
            self.tty = both if tty is None else tty
            self.terminal: Terminal | None = None
            if self.tty and self.input.terminal:
                self.terminal = stack.enter_context(Terminal(self.input.fd))
            self._stack = stack.pop_all()
        self._stdio = stdio
        self._report = report
        self._told = (0, 0)

    def close(self) -> None:
        """Restore the terminal, and let go of the descriptors."""
        self._stack.close()

    def size(self) -> tuple[int, int]:
        """Give the window's rows and columns."""
        self._told = window_size(self._stdio.stdout, self._stdio.stdin, self._stdio.stderr)
        return self._told

    def new_size(self) -> tuple[int, int] | None:
        """Give the window's size if it is another than the last that was given."""
        before = self._told
        return None if before == self.size() else self._told

    def say(self, text: str) -> None:
        """Report to the user, out of raw mode."""
        if self.terminal is None:
            self._report(text)
        else:
            with self.terminal.cooked():
                self._report(text)

    def in_background(self) -> bool:
        """Whether stdin is a terminal that another job of the shell has now."""
        return self.input.terminal and not self.input.ended and not foreground(self.input.fd)

    def give_keys(self) -> None:
        """Let the job have every key from now on."""
        if self.terminal is not None:
            self.terminal.enter_raw()

    def take_keys(self) -> None:
        """Have Ctrl-C and the like for ourselves again."""
        if self.terminal is not None:
            self.terminal.leave_raw()

    @property
    def waiting(self) -> int:
        """Bytes of output that their readers did not take yet."""
        return sum(output.waiting for output in self.outputs.values())
