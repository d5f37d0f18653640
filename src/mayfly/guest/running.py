"""A job that was forked: its streams, its signals, its end."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable

from mayfly.guest import job
from mayfly.guest.flows import Inflow, Outflow, Outlet
from mayfly.guest.framing import Stream
from mayfly.guest.job import Spec
from mayfly.guest.loop import Loop

KILL_S = 2.0
FAILURE_LIMIT = 8192


class Running:
    """One job, from the fork until nothing of its output is left."""

    def __init__(
        self,
        loop: Loop,
        outlet: Outlet,
        spec: Spec,
        *,
        stdin: Inflow,
        decided: Callable[[tuple[int, str] | None], None],
    ) -> None:
        self.flows: list[Outflow] = []
        self.has_terminal = spec.window is not None
        self._loop = loop
        self._outlet = outlet
        self._stdin = stdin
        self._decided = decided
        self._executed = False
        self._over = False
        self._status: int | None = None
        self._ours = job.launch(spec)
        self.pid = self._ours.pid
        self._spare = {self._ours.terminal, self._ours.slave} - {-1}
        loop.adopt(self.pid, self._ended)
        loop.watch(self._ours.failure, self._told)

    @property
    def drained(self) -> bool:
        """Whether the job has ended and all that it wrote has left."""
        return self._status is not None and all(flow.ended for flow in self.flows)

    def outcome(self) -> tuple[int | None, str | None]:
        """Give exit status or name of the signal."""
        code = os.waitstatus_to_exitcode(self._status or 0)
        if code >= 0:
            return code, None
        try:
            return None, signal.Signals(-code).name.removeprefix("SIG")
        except ValueError:
            # Most of the real-time signals have no name.
            return None, str(-code)

    # --- start ---

    def _told(self, _: int) -> None:
        """The child has become the job, or says why it could not."""
        try:
            told = os.read(self._ours.failure, FAILURE_LIMIT)
        except BlockingIOError:
            return
        self._executed = True
        self._loop.forget(self._ours.failure)
        os.close(self._ours.failure)
        if told:
            self._close_streams()
            self._decided(job.parse_failure(told))
            return
        self._connect()
        self._decided(None)

    def _connect(self) -> None:
        if self._ours.stdin >= 0:
            self._stdin.attach(self._ours.stdin, terminal=self.has_terminal)
        else:
            self._stdin.close()
        for stream, fd in (Stream.STDOUT, self._ours.stdout), (Stream.STDERR, self._ours.stderr):
            if fd >= 0:
                flow = Outflow(self._loop, self._outlet, stream, fd=fd, terminal=self.has_terminal)
                self.flows.append(flow)

    def _close_streams(self) -> None:
        self._over = True
        for fd in {self._ours.stdin, self._ours.stdout, self._ours.stderr} - {-1}:
            os.close(fd)
        self._close_spare()

    def _close_spare(self) -> None:
        for fd in self._spare:
            os.close(fd)
        self._spare.clear()

    # --- life ---

    def kill(self, number: int) -> None:
        """Send a signal to the job's process group, and to the one in front of its terminal."""
        if not self._executed or self._status is not None or self._over:
            return
        groups = {self.pid}
        if self._ours.terminal in self._spare:
            with contextlib.suppress(OSError):
                groups.add(os.tcgetpgrp(self._ours.terminal))
        for group in groups - {0}:
            with contextlib.suppress(OSError):
                os.killpg(group, number)

    def resize(self, window: tuple[int, int]) -> None:
        """Tell the size of the terminal."""
        if self._ours.terminal in self._spare:
            job.set_window(self._ours.terminal, window)

    def close_terminal(self) -> None:
        """Hang up, as when a terminal's window is closed; without a terminal nothing happens."""
        if self.has_terminal:
            self._stdin.close()
            self._close_spare()

    # --- end ---

    def _ended(self, status: int) -> None:
        if not self._executed:
            self._told(0)
        self._status = status
        if self._over:
            return
        self._stdin.close()
        self._close_spare()
        for flow in self.flows:
            flow.drain()

    def hang_up(self) -> None:
        """Nobody wants this job any more: end it, now or soon, and let go of its streams."""
        if self._over:
            return
        if self._status is None:
            self._end_by_force()
        self._over = True
        if not self._executed:
            self._executed = True
            self._loop.forget(self._ours.failure)
            os.close(self._ours.failure)
            self._close_streams()
        self._stdin.close()
        self._close_spare()
        for flow in self.flows:
            flow.end()

    def _end_by_force(self) -> None:
        if not self._executed:
            # Not the job yet, but a copy of the agent on its way to become it.
            os.kill(self.pid, signal.SIGKILL)
            self._loop.adopt(self.pid, lambda _: None)
            return
        self.kill(signal.SIGHUP)
        # A stopped one must wake up to hear it.
        self.kill(signal.SIGCONT)
        timer = self._loop.after(KILL_S, self._kill_all)
        self._loop.adopt(self.pid, lambda _: self._loop.cancel(timer))

    def _kill_all(self) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self.pid, signal.SIGKILL)
