"""Watch a machine while its job runs: whether QEMU or the guest ended, and why."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Self

from mayfly.engine.monitor import Monitor
from mayfly.engine.process import Process
from mayfly.engine.session.job import JobResult
from mayfly.engine.session.notes import printable
from mayfly.errors import RUN_FAILED, Failed, MayflyError, Quota, Unavailable
from mayfly.model import Who

PANIC = "Kernel panic"
CONSOLE_LOG = "console.log"
AGENT_PORTS = ("pcontrol", "psession")
AGENT_GRACE_S = 3.0
"""A guest that reboots ends its agent first: what QEMU says soon after is the better reason."""
REASON_S = 1.0
"""A port may break a moment before it is seen why."""
AGENT_GONE = "the agent in it was killed, or the guest is shutting down"


class Signs:
    """What QEMU's events say about the end of its machine; only one thread at a time may look.

    ``patience_s``: how long its last words are waited for, if not as long as other answers.
    """

    def __init__(self, process: Process, *, patience_s: float | None = None) -> None:
        self._process = process
        self._patience_s = patience_s
        self.reason = ""
        """Why the machine ended, for people; empty while it runs."""
        self.host_full = False
        """Whether it was stopped because the host had no room for its disk."""
        self._agent_gone_at: float | None = None

    def look(self) -> None:
        """Read what has arrived; raises ``Failed`` when QEMU is gone."""
        for event in self._process.monitor.events():
            if not self.reason:
                self._note(event.get("event", ""), event.get("data", {}))
        if self.patience_s() == 0:
            self.reason = self.reason or AGENT_GONE

    def check(self) -> None:
        """Look; raises ``Quota`` or ``Failed`` when the machine ended."""
        self.look()
        if self.reason:
            raise (Quota if self.host_full else Failed)(f"the machine ended: {self.reason}")

    def patience_s(self) -> float | None:
        """Give for how long nothing need be looked at unless an event arrives."""
        if self._agent_gone_at is None:
            return None
        return max(0, self._agent_gone_at + AGENT_GRACE_S - time.monotonic())

    def _note(self, name: str, data: dict[str, object]) -> None:
        if name == "BLOCK_IO_ERROR" and data.get("nospace"):
            self.host_full = True
            self.reason = "the host has no room left for its disk"
        elif name == "BLOCK_IO_ERROR" and data.get("reason") == os.strerror(errno.EFBIG):
            self.host_full = True
            self.reason = "its disk grew beyond what it was granted ('--disk SIZE' asks for more)"
        elif name == "BLOCK_IO_ERROR":
            self.reason = f"its disk failed: {data.get('reason')}"
        elif name == "SHUTDOWN":
            self.reason = self._shutdown_reason(str(data.get("reason")))
        elif name == "VSERPORT_CHANGE" and data.get("id") in AGENT_PORTS and not data.get("open"):
            # It holds its ports for as long as it lives.
            self._agent_gone_at = self._agent_gone_at or time.monotonic()

    def _shutdown_reason(self, cause: str) -> str:
        try:
            lines = console_lines(self._process.monitor, timeout_s=self._patience_s)
        except Unavailable:
            lines = []
        # Now they are nowhere else; what the machine said last is looked for later.
        with contextlib.suppress(OSError):
            _append(self._process.place, lines)
        for line in reversed(lines):
            if PANIC in line:
                return f"its kernel panicked: {printable(line[line.index(PANIC) :][:160])}"
        words = {"guest-reset": "it rebooted", "guest-shutdown": "it was powered off from inside"}
        return words.get(cause, f"it shut down ({cause})")


class Watch:
    """Looks for signs in a thread; ``fd`` becomes readable when the machine ended.

    Between ``start`` and ``stop`` nobody else may use the monitor.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self._signs = Signs(process)
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self.fd = os.eventfd(0, os.EFD_CLOEXEC)
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def reason(self) -> str:
        """Why the machine ended, for people; empty while it runs."""
        return self._signs.reason

    @property
    def host_full(self) -> bool:
        """Whether it was stopped because the host had no room for its disk."""
        return self._signs.host_full

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def has_reason(self, *, within_s: float) -> bool:
        """Tell whether the machine ended, or ends within a moment."""
        return bool(select.select([self.fd], [], [], within_s)[0])

    def stop(self) -> None:
        """Stop watching; the monitor is free again."""
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        os.close(self._stop)
        os.close(self.fd)

    def _run(self) -> None:
        signs = self._signs
        watched = [self._process.monitor.fileno(), self._process.handle, self._stop]
        ready: list[int] = []
        try:
            while True:
                # Before each wait: an event may have come along with an answer.
                signs.look()
                if signs.reason or self._stop in ready:
                    break
                ready = select.select(watched, [], [], signs.patience_s())[0]
        except MayflyError:
            signs.reason = signs.reason or f"its QEMU ended{self._last_words()}"
        if signs.reason:
            os.eventfd_write(self.fd, 1)

    def _last_words(self) -> str:
        lines = self._process.said().splitlines()
        said = "; ".join(line for line in lines if ": warning: " not in line)
        return f", saying: {said[-300:]}" if said else " (killed?)"


def explained(result: JobResult, watch: Watch) -> JobResult:
    """Give the result with the reason that was seen from outside, if the machine ended it.

    While the watch goes on.
    """
    if result.who is Who.JOB or not watch.has_reason(within_s=REASON_S):
        return result
    who = Who.SITE if watch.host_full else Who.MAYFLY
    reason = f"the machine ended before the job did: {watch.reason}"
    return replace(result, who=who, code=RUN_FAILED, reason=reason)


def console_lines(monitor: Monitor, *, timeout_s: float | None = None) -> list[str]:
    """Give the lines on the serial console since it was last read."""
    arguments = {"device": "console", "size": 1 << 18, "format": "utf8"}
    text = monitor.call("ringbuf-read", arguments, timeout_s=timeout_s)
    return str(text).splitlines()


def save_console(monitor: Monitor, place: Path) -> None:
    """Move what the console printed from QEMU's memory to the machine's directory."""
    _append(place, console_lines(monitor))


def _append(place: Path, lines: list[str]) -> None:
    if lines:
        with open(place / CONSOLE_LOG, "a", encoding="utf-8", errors="replace") as log:
            log.write("\n".join(lines) + "\n")
