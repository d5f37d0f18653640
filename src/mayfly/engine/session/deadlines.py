"""The time limit of the job, and the patience with its machine."""

from __future__ import annotations

from mayfly.engine.session.conversation import Stage
from mayfly.engine.session.parts import Parts
from mayfly.errors import TIME_LIMIT
from mayfly.guest.framing import Kind, Stream, pack
from mayfly.units import show_duration

_AT_THE_END = ("setup", "limit", "kill", "unblock", "give up")


class Deadlines:
    """Sets the timers of a session, and ends it when one has run out."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._patience = parts.request.patience
        self._exit_at = 0.0

    def await_answer(self) -> None:
        """The agent is asked for an answer."""
        self._parts.loop.after(self._patience.sync_s, "setup", self._no_answer)

    def begin(self) -> None:
        """The request goes out: the job's time starts."""
        limit = self._parts.request.time_limit_s
        if limit is not None:
            self._parts.loop.after(limit, "limit", self._limit)
        self.progress()

    def progress(self) -> None:
        """The machine took something: it may have time for the next."""
        self._parts.loop.after(self._patience.setup_s, "setup", self._no_start)

    def started(self) -> None:
        """The job runs."""
        self._parts.loop.cancel("setup")

    def exited(self) -> None:
        """The job has ended: only its files and its last output are to come."""
        loop = self._parts.loop
        self._exit_at = loop.clock()
        for name in ("kill", "unblock", "give up"):
            loop.cancel(name)
        if self._parts.ending.limit_reached:
            loop.after(self._parts.request.copy_grace_s, "copy", self._grace_over)
        else:
            loop.after(self._patience.copy_s, "copy", self._budget)

    def failed(self) -> None:
        """The machine failed: what it wrote before gets a moment to be read."""
        loop = self._parts.loop
        for name in (*_AT_THE_END, "copy"):
            loop.cancel(name)
        loop.after(self._patience.linger_s, "linger", self._parts.ending.hurry)

    def _no_answer(self) -> None:
        self._fail(f"the agent in the machine did not answer within {self._patience.sync_s:g} s")

    def _no_start(self) -> None:
        waited = f"{self._patience.setup_s:g} s"
        self._fail(f"the machine made no progress towards the job's start for {waited}")

    def _fail(self, reason: str) -> None:
        hint = "the machine's console log may say why"
        self._parts.ending.by_failure(self._parts.phase(), f"{reason}; {hint}")

    # --- the time limit --------------------------------------------------------------------------

    def _limit(self) -> None:
        parts = self._parts
        limit = f"time limit of {show_duration(parts.request.time_limit_s or 0)} reached"
        if parts.stage < Stage.JOB:
            parts.ending.by_user(TIME_LIMIT, parts.phase(), f"{limit} before the job had started")
        elif parts.stage is Stage.JOB:
            parts.ending.limit(f"{limit}: job ended")
            parts.console.say(f"{limit}: job ended")
            parts.signal_job("TERM")
            parts.loop.after(parts.request.grace_s, "kill", self._kill)
        else:
            parts.loop.after(parts.request.copy_grace_s, "copy", self._grace_over)

    def _kill(self) -> None:
        self._parts.signal_job("KILL")
        self._parts.loop.after(self._patience.kill_s / 2, "unblock", self._unblock)

    def _unblock(self) -> None:
        """Let the agent get rid of output that nobody here reads: the exit comes after it."""
        parts = self._parts
        for stream in (Stream.STDOUT, Stream.STDERR):
            if parts.console.outputs[stream].waiting and not parts.conversation.ended(stream):
                parts.conversation.close(stream)
                parts.link.send(pack(Kind.CLOSE, stream))
        parts.loop.after(self._patience.kill_s / 2, "give up", self._give_up)

    def _give_up(self) -> None:
        self._fail("the machine did not confirm the job's end")

    # --- the copy back ---------------------------------------------------------------------------

    def _grace_over(self) -> None:
        parts = self._parts
        if not parts.copied:
            limit = show_duration(parts.request.time_limit_s or 0)
            grace = show_duration(parts.request.copy_grace_s)
            reason = f"time limit of {limit} reached; {grace} more were not enough to copy back"
            parts.ending.by_user(TIME_LIMIT, "copy-out", reason)
        parts.ending.hurry()

    def _budget(self) -> None:
        parts = self._parts
        if parts.transfer is None or parts.copied:
            return
        allowed = self._patience.copy_s + parts.transfer.seconds_allowed()
        left = self._exit_at + allowed - parts.loop.clock()
        if left > 0:
            parts.loop.after(left, "copy", self._budget)
        else:
            self._fail(f"the copy back made too little progress in {show_duration(allowed)}")
