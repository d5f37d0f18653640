"""What each signal means while a job runs in a machine, and how a user leaves a hanging one.

Signals are the job's. A machine may not heed them, so these end the run without it:

- three SIGINT within two seconds;
- SIGHUP, or a second SIGTERM, when the job has not ended ten seconds later: a job may ignore the
  first SIGTERM, as it may without a machine, but nobody is left to end a run after a SIGHUP;
- three Ctrl-C keys in raw mode within two seconds, if the machine sent nothing meanwhile: in a
  machine that answers they are the job's own, a shell gets many of them;
- three Ctrl-] keys in raw mode within two seconds, whatever the machine sends: the escape of
  systemd's and other consoles, which nobody types by accident. Other keys between them do not
  count against it, since a machine can have the terminal answer queries as if they were typed.
"""

from __future__ import annotations

import select
import signal
from functools import partial

from mayfly.engine.session.conversation import Stage
from mayfly.engine.session.parts import Parts
from mayfly.engine.session.signals import Insistence, Signals, short_name

INTERRUPT_KEY = b"\x03"
ESCAPE_KEY = b"\x1d"
TERMS = 2
"""So many SIGTERM mean that the job is not waited for much longer."""
_END_THE_COPY = frozenset({signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})
_FLUSH_TRIES = 50
_FLUSH_MS = 10


class Interrupts:
    """Forwards signals to the job, and lets go of a machine that does not heed them."""

    def __init__(self, parts: Parts, signals: Signals) -> None:
        self._parts = parts
        self._signals = signals
        self._insistence = Insistence()
        self._escapes = Insistence()
        self._terms = 0
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
        """Look in raw mode, where all keys are the job's, for those that end the run."""
        terminal, now = self._parts.console.terminal, self._parts.loop.clock()
        if terminal is None or not terminal.raw:
            return
        for _ in range(data.count(ESCAPE_KEY)):
            if self._escapes.again(now):
                self._insist("Ctrl-] was pressed three times")
        if data != INTERRUPT_KEY:
            return
        if self._insistence.again(now) and self._heard_at < self._insistence.since:
            self._insist("interrupted three times")

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
            self._insist("interrupted three times")
        elif parts.ending.decided:
            # Only the readers of the output are waited for.
            parts.ending.hurry()
        elif parts.stage < Stage.JOB:
            words = f"interrupted by {number.name} before the job had started"
            parts.ending.by_user(128 + number, parts.phase(), words)
            parts.ending.hurry()
        elif parts.stage is Stage.JOB:
            parts.signal_job(short_name(number))
            self._terms += number == signal.SIGTERM
            if number == signal.SIGHUP or self._terms >= TERMS:
                self._wait_for_end(number)
        elif number in _END_THE_COPY:
            words = f"{number.name} ended the copy back"
            parts.ending.by_user(128 + number, parts.phase(), words)
            parts.ending.hurry()

    def _insist(self, what: str) -> None:
        words = f"{what}: the run was ended without waiting for the job"
        self._parts.ending.by_user(128 + signal.SIGINT, self._parts.phase(), words)
        self._parts.ending.hurry()

    def _wait_for_end(self, number: signal.Signals) -> None:
        # Not set anew by the next signal: to repeat it must not prolong it.
        if not self._parts.loop.has("let go"):
            self._let_go_later(number)

    def _let_go_later(self, number: signal.Signals) -> None:
        seconds = self._parts.request.patience.kill_s
        self._parts.loop.after(seconds, "let go", partial(self._let_go, number))

    def _let_go(self, number: signal.Signals) -> None:
        parts = self._parts
        if parts.stage is Stage.AFTER and not parts.ending.decided:
            # The copy back has its own limits; its end must not wait for readers then.
            self._let_go_later(number)
            return
        seconds = parts.request.patience.kill_s
        words = f"{number.name} came, and the job did not end within {seconds:g} s"
        parts.ending.by_user(128 + number, parts.phase(), words)
        parts.ending.hurry()

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
