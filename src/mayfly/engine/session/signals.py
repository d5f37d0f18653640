"""Signals as bytes in a pipe, for the one loop; what was set before comes back at the end."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from types import FrameType
from typing import Any

FORWARDED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_OURS = (signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT)
# SIGPIPE: a reader that went away is an error of write. SIGTTIN: a read is refused, not a stop.
_IGNORED = (signal.SIGPIPE, signal.SIGTTIN)

INSIST = 3
INSIST_S = 2.0
"""So many SIGINT, or keys that end it, within so many seconds end the run at once."""


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """Be there, so that the wakeup descriptor gets the signal's number."""


class Signals:
    """While entered, signals are collected; outside the main thread it collects none."""

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}
        self._wakeup_before = -1
        self.fd, self._write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            self._wakeup_before = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
            for number in (*FORWARDED, *_OURS):
                # Ignored by the parent (nohup, a background job): ignored by us.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, _nothing)
            for number in _IGNORED:
                self._before[number] = signal.signal(number, signal.SIG_IGN)
        return self

    def __exit__(self, *unused: object) -> None:
        for number, handler in self._before.items():
            # A handler that was not set from Python cannot be given back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if self._before:
            signal.set_wakeup_fd(self._wakeup_before)
        os.close(self.fd)
        os.close(self._write_end)

    def take(self) -> list[signal.Signals]:
        """Give the signals that came, in their order."""
        try:
            numbers = os.read(self.fd, 4096)
        except BlockingIOError:
            return []
        # Handlers of others write to the same pipe.
        return [one for number in numbers for one in (*FORWARDED, *_OURS) if one == number]

    def stop_ourselves(self) -> None:
        """Do what SIGTSTP does by itself; comes back when we are continued."""
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, _nothing)


class Insistence:
    """Notices that the user presses a key again and again."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=INSIST)

    @property
    def since(self) -> float:
        """When the first of those that count came."""
        return self._times[0]

    def again(self, now: float) -> bool:
        """Count one; ``True`` at the one that is enough."""
        self._times.append(now)
        return len(self._times) == INSIST and now - self._times[0] <= INSIST_S


def short_name(number: signal.Signals) -> str:
    """Give ``INT`` for SIGINT, as the messages to the agent have it."""
    return number.name.removeprefix("SIG")


def parse_name(name: str) -> int | None:
    """Read ``INT``, ``SIGINT``, ``RTMIN+3`` or a number; ``None`` when it is no signal."""
    name = name.removeprefix("SIG")
    if f"SIG{name}" in signal.Signals.__members__:
        return int(signal.Signals[f"SIG{name}"])
    for start, first in (("RTMIN+", 34), ("", 0)):
        digits = name.removeprefix(start)
        if name.startswith(start) and digits.isascii() and digits.isdigit() and len(digits) < 3:
            number = first + int(digits)
            return number if 1 <= number <= 64 else None
    return None
