"""How far a transfer is, how fast it goes, and how long it will take."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from mayfly.units import show_duration, show_size

_SPAN_S = 8.0
"""The rate is that of so many last seconds: a server may be slow at first."""
_EACH_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """One look at a transfer."""

    what: str
    done_bytes: int
    total_bytes: int | None
    rate: float | None
    """Bytes in a second; None while too little is known."""

    @property
    def fraction(self) -> float | None:
        """Give how much of it is done, where that is known."""
        return self.done_bytes / self.total_bytes if self.total_bytes else None

    @property
    def left_s(self) -> float | None:
        """Give the seconds that it will take, where that can be told."""
        if self.total_bytes is None or not self.rate:
            return None
        return max(0, self.total_bytes - self.done_bytes) / self.rate

    def __str__(self) -> str:
        words = [show_size(self.done_bytes)]
        if self.total_bytes:
            words[0] += f" of {show_size(self.total_bytes)}"
        if self.rate is not None:
            words.append(f"{show_size(int(self.rate))}/s")
        if (left := self.left_s) is not None:
            words.append(f"{show_duration(left)} left" if left >= 1 else "nearly done")
        return f"{self.what} ({', '.join(words)})"


Watch = Callable[[Pace], None]


def unwatched(pace: Pace) -> None:
    """Take a look at a transfer and do nothing with it."""


class Meter:
    """Counts what arrives, and tells of it now and then."""

    def __init__(
        self,
        what: str,
        total_bytes: int | None,
        watch: Watch = unwatched,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what, self._total = what, total_bytes
        self._watch, self._clock = watch, clock
        self._looks: deque[tuple[float, int]] = deque()
        self._done = 0
        self._lock = threading.Lock()

    def begin(self, done: int, total: int | None) -> None:
        """Count on from here; what was there before says nothing about the rate."""
        self._done, self._total = done, total
        self._looks.clear()
        self._looks.append((self._clock(), done))

    def add(self, count: int) -> None:
        """Count what has just arrived; several threads may."""
        with self._lock:
            self._done += count
            now = self._clock()
            if not self._looks:
                self._looks.append((now, self._done - count))
            if now - self._looks[-1][0] < _EACH_S:
                return
            self._looks.append((now, self._done))
            while len(self._looks) > 2 and now - self._looks[0][0] > _SPAN_S:
                self._looks.popleft()
            self._watch(self.pace())

    def pace(self) -> Pace:
        """Give how things stand."""
        rate = None
        if len(self._looks) > 1:
            (began, then), (now, done) = self._looks[0], self._looks[-1]
            rate = (done - then) / (now - began) if now > began else None
        return Pace(what=self._what, done_bytes=self._done, total_bytes=self._total, rate=rate)
