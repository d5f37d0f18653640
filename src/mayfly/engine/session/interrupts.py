"""What each signal means while a job runs in a machine."""

from __future__ import annotations

import select
import signal

from mayfly.engine.session.conversation import Stage
from mayfly.engine.session.parts import Parts
from mayfly.engine.session.signals import Insistence, Signals, short_name

INTERRUPT_KEY = b"\x03"
_END_THE_COPY = frozenset({signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})
_FLUSH_TRIES = 50
_FLUSH_MS = 10


class Interrupts:
    """Forwards signals to the job, and lets go of a machine that does not heed them."""

    def __init__(self, parts: Parts, signals: Signals) -> None:
        self._parts = parts
        self._signals = signals
        self._insistence = Insistence()
        self._heard_at = 0.0

    def ready(self) -> None:
        """Act on the signals that came."""
        for number in self._signals.take():
            if number == signal.SIGWINCH:
                self.resize()
            elif number == signal.SIGTSTP:
                self._stop()
            elif number == signal.SIGCONT:
                self._resume()
            else:
                self._forward(number)

    def heard(self) -> None:
        """Note that the machine lives."""
        self._heard_at = self._parts.loop.clock()

    def keys(self, data: bytes) -> None:
        """Look for Ctrl-C in raw mode, where it is the job's: but a hung machine hears nothing."""
        terminal = self._parts.console.terminal
        if data != INTERRUPT_KEY or terminal is None or not terminal.raw:
            return
        enough = self._insistence.again(self._parts.loop.clock())
        if enough and self._heard_at < self._insistence.since:
            self._insist()

    def resize(self) -> None:
        """Tell the job the size of its window, if that changed."""
        parts = self._parts
        if not parts.console.tty or parts.stage is not Stage.JOB:
            return
        size = parts.console.new_size()
        if size is not None:
            parts.tell({"type": "resize", "rows": size[0], "cols": size[1]})

    def _forward(self, number: signal.Signals) -> None:
        parts = self._parts
        if number == signal.SIGINT and self._insistence.again(parts.loop.clock()):
            self._insist()
        elif parts.ending.decided:
            # Only the readers of the output are waited for.
            parts.ending.hurry()
        elif parts.stage < Stage.JOB:
            words = f"interrupted by {number.name} before the job had started"
            parts.ending.by_user(128 + number, parts.phase(), words)
            parts.ending.hurry()
        elif parts.stage is Stage.JOB:
            parts.signal_job(short_name(number))
        elif number in _END_THE_COPY:
            words = f"{number.name} ended the copy back"
            parts.ending.by_user(128 + number, parts.phase(), words)
            parts.ending.hurry()

    def _insist(self) -> None:
        words = "interrupted three times: the run was ended without waiting for the job"
        self._parts.ending.by_user(128 + signal.SIGINT, self._parts.phase(), words)
        self._parts.ending.hurry()

    # --- stopped and continued by the shell ------------------------------------------------------

    def _stop(self) -> None:
        parts = self._parts
        if parts.stage is Stage.JOB:
            # Not TSTP: the job's group is orphaned in its machine, where that does nothing.
            parts.signal_job("STOP")
            self._flush()
        parts.console.take_keys()
        self._signals.stop_ourselves()
        self._resume()

    def _flush(self) -> None:
        """Get the message out before we stand still, unless the machine takes nothing."""
        poll = select.poll()
        poll.register(self._parts.link.fileno(), select.POLLOUT)
        for _ in range(_FLUSH_TRIES):
            self._parts.link.flush()
            if not self._parts.link.queued:
                return
            poll.poll(_FLUSH_MS)

    def _resume(self) -> None:
        parts = self._parts
        if parts.console.terminal is not None and not parts.console.in_background():
            parts.console.terminal.renew()
        if parts.stage is Stage.JOB:
            parts.signal_job("CONT")
            self.resize()
