"""One conversation on the session port: one job, its streams and its files.

    start -> [unpack] -> launch -> started -> run -> drain -> exit -> [send changes] -> bye

A conversation that is lost ends the job: SIGHUP at once, SIGKILL later.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any

from mayfly.guest import assistant, changes, job, workdir
from mayfly.guest.fields import Refused, shown
from mayfly.guest.flows import Inflow, Outflow, Outlet
from mayfly.guest.framing import Frame, FrameError, Kind, Stream, credit_of, pack, pack_message
from mayfly.guest.job import Credentials
from mayfly.guest.loop import Loop
from mayfly.guest.order import Order, Workdir, parse_order, parse_window
from mayfly.guest.running import Running

SIGNALS = {one.name.removeprefix("SIG"): one for one in signal.Signals}


class Step(Enum):
    """How far the conversation has come."""

    IDLE = "idle"
    UNPACKING = "unpacking"
    RUNNING = "running"
    SENDING = "sending"
    ENDED = "ended"


class Session:
    """One conversation, from SYNC to ``bye`` or to its loss."""

    def __init__(
        self,
        loop: Loop,
        outlet: Outlet,
        user: Callable[[bool], Credentials],
        *,
        on_end: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._outlet = outlet
        self._user = user
        self._on_end = on_end
        self._step = Step.IDLE
        self._order: Order | None = None
        self._running: Running | None = None
        self._sending: Outflow | None = None
        self._assistant = 0
        self._index = -1
        self._signals: list[int] = []
        self._turn = 0
        self._inflows = {
            stream: Inflow(loop, outlet, stream) for stream in (Stream.STDIN, Stream.FILES_IN)
        }
        loop.employ(self.pump)

    # --- from the host ---

    def frame(self, frame: Frame) -> None:
        """Take one frame; ``FrameError`` when it cannot be meant."""
        if self._step is Step.ENDED:
            return
        if frame.kind is Kind.MESSAGE:
            self._message(frame.message)
        elif frame.kind in (Kind.DATA, Kind.EOF):
            self._incoming(frame)
        else:
            self._outgoing(frame)

    def _message(self, message: dict[str, Any]) -> None:
        sort = message["type"]
        if sort == "start" and self._step is Step.IDLE:
            self._start(message)
        elif sort == "resize":
            self._resize(message)
        elif sort == "signal":
            self._signal(message)
        else:
            raise FrameError(f"no place for a message of type '{sort}'")

    def _incoming(self, frame: Frame) -> None:
        for stream, flow in self._inflows.items():
            if frame.stream == stream:
                if frame.kind is Kind.DATA:
                    flow.take(frame.payload)
                else:
                    flow.finish()
                return
        raise FrameError(f"stream {frame.stream} does not lead to the machine")

    def _outgoing(self, frame: Frame) -> None:
        # A stream may have ended here before the host knows: that is no error.
        for flow in self._outflows():
            if frame.stream == flow.stream and not flow.ended:
                if frame.kind is Kind.CREDIT:
                    flow.grant(credit_of(frame.payload))
                    continue
                flow.end()
                if flow.stream is Stream.STDOUT and self._running is not None:
                    self._running.close_terminal()

    def _outflows(self) -> list[Outflow]:
        flows = [] if self._running is None else self._running.flows
        return flows if self._sending is None else [*flows, self._sending]

    def _resize(self, message: dict[str, Any]) -> None:
        try:
            window = parse_window(message)
        except Refused as error:
            raise FrameError(str(error)) from error
        if self._running is not None:
            self._running.resize(window)

    def _signal(self, message: dict[str, Any]) -> None:
        name = message.get("signal")
        if not isinstance(name, str) or name not in SIGNALS:
            raise FrameError("no such signal")
        if self._running is not None:
            self._running.kill(SIGNALS[name])
        else:
            self._signals.append(SIGNALS[name])

    # --- the way to the job ---

    def _start(self, message: dict[str, Any]) -> None:
        try:
            self._order = order = parse_order(message, self._user)
            if order.workdir is not None:
                self._prepare(order.workdir, order.spec.credentials)
            if self._step is Step.IDLE:
                self._launch(order)
        except (Refused, OSError) as error:
            self._fail(job.MAYFLY_FAILED, _told(error))

    def _prepare(self, files: Workdir, credentials: Credentials) -> None:
        workdir.make_folder(files.path, credentials)
        self._index = workdir.open_index()
        if not files.bring:
            return
        source, pipe = job.wide_pipe()
        os.set_blocking(pipe, False)
        self._inflows[Stream.FILES_IN].attach(pipe)
        try:
            self._assistant = assistant.start(
                self._loop,
                partial(workdir.unpack, source, files.path, self._index),
                self._unpacked,
                files=(source, self._index),
                credentials=credentials,
            )
        finally:
            os.close(source)
        self._step = Step.UNPACKING

    def _unpacked(self, result: assistant.Result) -> None:
        self._assistant = 0
        if self._step is not Step.UNPACKING or self._order is None:
            return
        if result.ok:
            self._inflows[Stream.FILES_IN].close()
        else:
            self._inflows[Stream.FILES_IN].refuse()
            self._fail(job.MAYFLY_FAILED, "cannot unpack the files: " + shown(result.report))
            return
        try:
            self._launch(self._order)
        except OSError as error:
            self._fail(job.MAYFLY_FAILED, _told(error))

    def _launch(self, order: Order) -> None:
        stdin = self._inflows[Stream.STDIN]
        self._running = Running(
            self._loop, self._outlet, order.spec, stdin=stdin, decided=self._decided
        )
        self._step = Step.RUNNING

    def _decided(self, failure: tuple[int, str] | None) -> None:
        """The program was executed, or could not be."""
        if failure is not None or self._running is None:
            self._fail(*failure or (job.MAYFLY_FAILED, ""))
            return
        self._outlet.send(pack_message({"type": "started", "pid": self._running.pid}))
        if self._running.has_terminal:
            self._outlet.send(pack(Kind.EOF, Stream.STDERR))
        for one in self._signals:
            self._running.kill(one)

    def _fail(self, code: int, reason: str) -> None:
        self._outlet.send(pack_message({"type": "failed", "code": code, "reason": reason}))
        self._end()

    # --- the way out ---

    def pump(self) -> bool:
        """Do one round of work; true when there may be more."""
        more = False
        for inflow in self._inflows.values():
            more |= inflow.pump()
        # Credit that was just queued must not pass for a port that is full.
        self._outlet.flush()
        flows = self._outflows()
        self._turn += 1
        for at in range(len(flows)):
            # By turns: one that always has something must not keep the others waiting.
            if self._outlet.idle:
                more |= flows[(at + self._turn) % len(flows)].pump()
        if self._step is Step.RUNNING and self._running is not None and self._running.drained:
            self._job_ended(self._running)
        elif self._step is Step.SENDING and not self._assistant and self._all_sent():
            self._end()
        return more

    def _all_sent(self) -> bool:
        return self._sending is None or self._sending.ended

    def _job_ended(self, running: Running) -> None:
        code, name = running.outcome()
        self._outlet.send(pack_message({"type": "exit", "code": code, "signal": name}))
        order = self._order
        if order is None or order.workdir is None or not order.workdir.fetch:
            self._end()
            return
        self._step = Step.SENDING
        try:
            self._send(order.workdir, order.spec.credentials)
        except OSError:
            # No END among the entries: the host sees that they are not complete.
            self._outlet.send(pack(Kind.EOF, Stream.FILES_OUT))
            self._end()

    def _send(self, files: Workdir, credentials: Credentials) -> None:
        pipe, target = job.wide_pipe()
        os.set_blocking(pipe, False)
        work = partial(changes.send, target, files.path, self._index, deletions=files.deletions)
        try:
            self._assistant = assistant.start(
                self._loop,
                work,
                self._sent,
                files=(target, self._index),
                credentials=credentials,
            )
        except OSError:
            os.close(pipe)
            raise
        finally:
            os.close(target)
        self._sending = Outflow(self._loop, self._outlet, Stream.FILES_OUT, fd=pipe)

    def _sent(self, _: assistant.Result) -> None:
        self._assistant = 0

    def _end(self) -> None:
        self._outlet.send(pack_message({"type": "bye"}))
        self._stop()

    def hang_up(self) -> None:
        """The conversation is lost."""
        if self._step is not Step.ENDED:
            self._stop()

    def _stop(self) -> None:
        self._step = Step.ENDED
        self._loop.dismiss(self.pump)
        if self._assistant:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._assistant, signal.SIGKILL)
        if self._running is not None:
            self._running.hang_up()
        if self._sending is not None:
            self._sending.end()
        for flow in self._inflows.values():
            flow.close()
        if self._index >= 0:
            os.close(self._index)
            self._index = -1
        self._on_end()


def _told(error: Refused | OSError) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        name = error.filename
        return f"{shown(name) if isinstance(name, bytes) else name}: {error.strerror}"
    return str(error)
