"""The one loop of the agent: descriptors, timers and child processes.

Descriptors are watched edge-triggered: an owner keeps a note that its descriptor is ready until
it meets EAGAIN. So a port whose host is away costs nothing (it would be ready for ever), and a
stream without credit needs no system call to be left alone.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable

EDGES = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
READABLE = select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR | select.EPOLLRDHUP
WRITABLE = select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR


class Loop:
    """Waits, and calls whoever asked."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, Callable[[int], None]] = {}
        self._timers: dict[int, tuple[float, Callable[[], None]]] = {}
        self._timer = 0
        self._children: dict[int, Callable[[int], None]] = {}
        self._workers: list[Callable[[], bool]] = []
        self._finishers: list[Callable[[], None]] = []
        self._busy = True
        self._wake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self.watch(self._wake, self._reap)

    def watch(self, fd: int, changed: Callable[[int], None]) -> None:
        """Call ``changed(events)`` whenever something happens on ``fd``."""
        self._watched[fd] = changed
        self._epoll.register(fd, EDGES)

    def forget(self, fd: int) -> None:
        """Stop watching; to be done before the descriptor is closed."""
        if self._watched.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def after(self, seconds: float, act: Callable[[], None]) -> int:
        """Call ``act()`` once, later; the number given back is for ``cancel``."""
        self._timer += 1
        self._timers[self._timer] = (time.monotonic() + seconds, act)
        return self._timer

    def cancel(self, timer: int) -> None:
        """Drop a timer; one that has gone off is no error."""
        self._timers.pop(timer, None)

    def adopt(self, pid: int, ended: Callable[[int], None]) -> None:
        """Call ``ended(wait status)`` when a child of ours ends; replaces an earlier wish."""
        self._children[pid] = ended

    def employ(self, work: Callable[[], bool]) -> None:
        """Call ``work()`` in every turn; while one says true, the next turn does not wait."""
        self._workers.append(work)

    def dismiss(self, work: Callable[[], bool]) -> None:
        """Undo ``employ``."""
        self._workers.remove(work)

    def finish_with(self, act: Callable[[], None]) -> None:
        """Call ``act()`` at the end of every turn."""
        self._finishers.append(act)

    def finish_without(self, act: Callable[[], None]) -> None:
        """Undo ``finish_with``."""
        self._finishers.remove(act)

    @property
    def expects(self) -> bool:
        """Whether a child or a timer of ours is still to come."""
        return bool(self._children or self._timers)

    def turn(self) -> None:
        """Wait for something to happen, tell who wants to know, let everyone work."""
        for fd, events in self._epoll.poll(0 if self._busy else self._patience()):
            # A handler may have closed what a later event of the same batch is about.
            changed = self._watched.get(fd)
            if changed is not None:
                changed(events)
        if self._timers:
            self._ring()
        busy = False
        for work in tuple(self._workers):
            busy |= work()
        self._busy = busy
        for finish in tuple(self._finishers):
            finish()

    def _patience(self) -> float | None:
        if not self._timers:
            return None
        return max(0.0, min(when for when, _ in self._timers.values()) - time.monotonic())

    def _ring(self) -> None:
        now = time.monotonic()
        for timer, (when, act) in list(self._timers.items()):
            if when <= now and self._timers.pop(timer, None) is not None:
                act()

    def _reap(self, _: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wake, 4096):
                pass
        # All of them, also those that nobody asked about: a lost sshfs must not stay a zombie.
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    break
                ended = self._children.pop(pid, None)
                if ended is not None:
                    ended(status)
