"""One selector for everything that the service waits for, and generators for what takes steps.

A task is a generator that yields ``Wait``s; it goes on when one of the descriptors is readable or
its time is over, and is sent which. No threads: the service forks, and a fork copies one only.
"""

from __future__ import annotations

import heapq
import itertools
import selectors
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

Callback = Callable[[], None]
DEAD_TIMERS = 256
"""So many cancelled ones may lie about, or as many as there are others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """What a task waits for; with no descriptor it only sleeps."""

    fds: tuple[int, ...] = ()
    seconds: float | None = None


Task = Generator[Wait, int | None, None]
"""Is sent the descriptor that is readable, or None when the time is over."""


class Timer:
    """Something that will be called once, unless it is cancelled."""

    def __init__(self, call: Callback) -> None:
        self._call: Callback | None = call

    @property
    def is_dead(self) -> bool:
        """Whether it would do nothing."""
        return self._call is None

    def cancel(self) -> None:
        """Do not call it."""
        self._call = None

    def fire(self) -> None:
        """Call it now, if it was not cancelled."""
        call, self._call = self._call, None
        if call is not None:
            call()


class Loop:
    """Calls back when descriptors are readable and when times come."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._tidy_at = DEAD_TIMERS
        self.waited_s = 0.0
        """How long nothing was to be done so far."""

    def watch(self, fd: int, call: Callback) -> None:
        """Call back each time that ``fd`` is readable, until ``forget``."""
        self._selector.register(fd, selectors.EVENT_READ, call)

    def forget(self, fd: int) -> None:
        """Watch ``fd`` no longer; before it is closed."""
        self._selector.unregister(fd)

    def later(self, seconds: float, call: Callback) -> Timer:
        """Call back once, in so many seconds."""
        timer = Timer(call)
        if len(self._timers) >= self._tidy_at:
            # A guest that talks without end makes us begin thousands of waits in the time of one.
            self._timers = [entry for entry in self._timers if not entry[2].is_dead]
            heapq.heapify(self._timers)
            self._tidy_at = 2 * len(self._timers) + DEAD_TIMERS
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), timer))
        return timer

    def spawn(self, task: Task) -> None:
        """Begin a task; it runs at once up to its first wait."""
        _Running(self, task).go(None)

    def run_once(self, limit_s: float | None = None) -> None:
        """Wait until something is to be done, and do it."""
        began = time.monotonic()
        ready = self._selector.select(self._patience(began, limit_s))
        self.waited_s += time.monotonic() - began
        for key, _ in ready:
            # One of those before it may have made an end of this one.
            if self._selector.get_map().get(key.fd) is key:
                key.data()
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2].fire()

    def _patience(self, now: float, limit_s: float | None) -> float | None:
        if not self._timers:
            return limit_s
        until_timer = max(0.0, self._timers[0][0] - now)
        return until_timer if limit_s is None else min(until_timer, limit_s)


class _Running:
    """A task between its steps."""

    def __init__(self, loop: Loop, task: Task) -> None:
        self._loop = loop
        self._task = task
        self._fds: tuple[int, ...] = ()
        self._timer: Timer | None = None

    def go(self, ready: int | None) -> None:
        self._stop_waiting()
        try:
            wait = self._task.send(ready)
        except StopIteration:
            return
        self._fds = wait.fds
        for fd in self._fds:
            self._loop.watch(fd, lambda fd=fd: self.go(fd))  # type: ignore[misc]
        if wait.seconds is not None:
            self._timer = self._loop.later(wait.seconds, lambda: self.go(None))

    def _stop_waiting(self) -> None:
        for fd in self._fds:
            self._loop.forget(fd)
        self._fds = ()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
