"""One poll(2) and a few timers: all that a session waits for."""

from __future__ import annotations

import select
import time
from collections.abc import Callable

_LONGEST_MS = 3_600_000


class Loop:
    """Calls the action of whatever descriptor is ready or timer is due."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._poll = select.poll()
        self._events: dict[int, int] = {}
        self._actions: dict[int, Callable[[], None]] = {}
        self._timers: dict[str, tuple[float, Callable[[], None]]] = {}
        self.clock = clock

    def watch(self, fd: int, events: int, action: Callable[[], None]) -> None:
        """Call ``action`` when the descriptor is ready; no events: do not look at it."""
        if fd < 0 or self._events.get(fd, 0) == events:
            return
        if events:
            self._poll.register(fd, events)
            self._events[fd] = events
            self._actions[fd] = action
        else:
            # Left registered, a hung-up descriptor would be reported for ever.
            self._poll.unregister(fd)
            del self._events[fd], self._actions[fd]

    def after(self, seconds: float, name: str, action: Callable[[], None]) -> None:
        """Call ``action`` once in so many seconds; the same name again sets it anew."""
        self._timers[name] = (self.clock() + seconds, action)

    def cancel(self, name: str) -> None:
        """Forget a timer."""
        self._timers.pop(name, None)

    def has(self, name: str) -> bool:
        """Whether a timer is set."""
        return name in self._timers

    def turn(self) -> None:
        """Wait for something, and act on it."""
        for fd, _ in self._poll.poll(self._timeout_ms()):
            action = self._actions.get(fd)
            if action is not None:
                action()
        now = self.clock()
        due = sorted((at, name) for name, (at, _) in self._timers.items() if at <= now)
        for _, name in due:
            timer = self._timers.pop(name, None)
            if timer is not None:
                timer[1]()

    def _timeout_ms(self) -> int:
        if not self._timers:
            return _LONGEST_MS
        first = min(at for at, _ in self._timers.values())
        # Rounded up: to wake a moment too early would be a busy loop.
        return min(_LONGEST_MS, max(0, int((first - self.clock()) * 1000) + 1))
