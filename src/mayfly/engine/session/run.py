"""A job in a machine, seen from the user: the host's end of the session port.

One loop moves everything: the user's streams and signals, the work directory, the deadlines.
Nothing that the machine sends can raise out of here, last without bound, or grow memory.

Standard input is read only as the machine takes it, but ahead of the job: up to 1 MiB of what is
piped in may be gone when a job ends that did not read it.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

from mayfly.engine.session.console import Console
from mayfly.engine.session.conversation import Conversation, Stage
from mayfly.engine.session.deadlines import Deadlines
from mayfly.engine.session.ending import Ending
from mayfly.engine.session.interrupts import Interrupts
from mayfly.engine.session.job import JobRequest, JobResult, Patience, Stdio, Workdir, pack_start
from mayfly.engine.session.link import Link
from mayfly.engine.session.loop import Loop
from mayfly.engine.session.notes import Notes, Remark, printable
from mayfly.engine.session.parts import Parts
from mayfly.engine.session.signals import Signals
from mayfly.engine.session.stdin import Stdin
from mayfly.engine.session.transfer import Transfer
from mayfly.errors import RUN_FAILED
from mayfly.guest.framing import NONCE_LENGTH, Frame, FrameError, Kind, Stream, pack
from mayfly.guest.tree import TreeError
from mayfly.units import show_size

__all__ = ["JobRequest", "JobResult", "Patience", "Stdio", "Workdir", "run_job"]

DATA_PIECE = 64 << 10
"""Bytes in one DATA frame of the work directory."""
GONE_S = 1.0
"""For what a dead machine sent before it died."""
_READER_GONE = frozenset({errno.EPIPE, errno.ECONNRESET})
_NAMES = {Stream.STDOUT: "standard output", Stream.STDERR: "standard error"}


def run_job(
    port: socket.socket,
    request: JobRequest,
    stdio: Stdio,
    *,
    machine_gone: int | None = None,
    report: Callable[[str], None],
    started: Callable[[], None] | None = None,
) -> JobResult:
    """Run a job through the session port of its machine, to its end.

    Raises only for what is wrong here, before anything started: a work directory that cannot be
    read or exceeds its limits. ``machine_gone`` becomes readable when QEMU has ended. The port
    stays open, non-blocking while this runs.
    """
    notes = Notes()
    with ExitStack() as opening:
        console = Console(stdio, tty=request.tty, report=report)
        opening.callback(console.close)
        start = pack_start(request, console.size() if console.tty else None)
        transfer = None
        if request.workdir is not None:
            transfer = Transfer(request.workdir, notes, console.say)
            opening.callback(transfer.close)
        opening.callback(port.settimeout, port.gettimeout())
        port.setblocking(False)
        opened = opening.pop_all()
    parts = Parts(
        request=request,
        loop=Loop(),
        link=Link(port, os.urandom(NONCE_LENGTH)),
        conversation=_conversation(request),
        console=console,
        transfer=transfer,
        ending=Ending(),
    )
    # Signals outermost: none may end us before the terminal and the files are in order.
    with Signals() as signals, opened:
        session = Session(parts, Interrupts(parts, signals), notes, start)
        session.watch(signals.fd, machine_gone)
        session.run(started or _nothing)
    return parts.ending.result(notes.lines())


def _nothing() -> None:
    """Tell nobody that the job has started."""


def _conversation(request: JobRequest) -> Conversation:
    workdir = request.workdir
    return Conversation(
        files_in=workdir is not None, files_out=workdir is not None and workdir.copy_back
    )


class Session:
    """Moves what is ready from one side to the other."""

    def __init__(self, parts: Parts, interrupts: Interrupts, notes: Notes, start: bytes) -> None:
        self._parts = parts
        self._interrupts = interrupts
        self._notes = notes
        self._start = start
        self._started: Callable[[], None] = _nothing
        self._deadlines = Deadlines(parts)
        self._stdin = Stdin(parts, interrupts.keys)
        self._finishing = False
        self._kinds: dict[Kind, Callable[[Frame], None]] = {
            Kind.SYNC: self._synced,
            Kind.MESSAGE: self._message,
            Kind.DATA: self._data,
            Kind.EOF: self._eof,
            Kind.CREDIT: self._credit,
            Kind.CLOSE: self._close,
        }
        self._messages: dict[str, Callable[[dict[str, Any]], None]] = {
            "started": self._job_started,
            "failed": self._job_failed,
            "exit": self._job_exited,
            "bye": parts.conversation.bye,
        }

    def watch(self, signals: int, machine_gone: int | None) -> None:
        """Look at what is neither the port nor the user's streams."""
        loop = self._parts.loop
        loop.watch(signals, select.POLLIN, self._interrupts.ready)
        if machine_gone is not None:
            loop.watch(machine_gone, select.POLLIN, partial(self._gone, machine_gone))

    def run(self, started: Callable[[], None]) -> None:
        """Go on until there is a result; ``started`` is called when the job runs."""
        self._started = started
        parts = self._parts
        self._deadlines.await_answer()
        while not self._over():
            self._look()
            try:
                parts.loop.turn()
            except (FrameError, TreeError) as error:
                words = f"the agent in the machine sent nonsense: {printable(str(error), 300)}"
                parts.ending.by_failure(parts.phase(), f"{words}; the machine cannot be trusted")
        if parts.transfer is not None and parts.stage >= Stage.JOB:
            parts.transfer.tell_missing()
        if self._stdin.lost:
            lost = show_size(self._stdin.lost)
            self._notes.say(f"{lost} of what was typed was lost: the job did not take it")
        if parts.console.waiting:
            lost = show_size(parts.console.waiting)
            self._notes.say(f"{lost} of the job's output was lost: nothing here read it")

    def _over(self) -> bool:
        parts, ending = self._parts, self._parts.ending
        if not ending.decided and parts.stage is Stage.AFTER and parts.copied:
            self._conclude()
            self._finishing = True
        elif ending.decided and not self._finishing:
            self._finishing = True
            self._deadlines.failed()
        return ending.decided and (ending.hurried or not parts.console.waiting)

    def _conclude(self) -> None:
        unwritten = self._notes.line(Remark.NOT_WRITTEN)
        too_much = self._notes.line(Remark.OVER_LIMIT)
        # A job whose results are lost must not look like a success.
        if unwritten:
            self._parts.ending.by_failure("copy-out", f"some of what came back {unwritten}")
        elif too_much:
            self._parts.ending.by_failure("copy-out", f"some of the results were {too_much}")
        else:
            self._parts.ending.by_job()

    # --- before each turn: what is wanted now ----------------------------------------------------

    def _look(self) -> None:
        parts = self._parts
        parts.link.flush()
        # Until nothing is left to say, or the queue is full and the port wakes us: to wait
        # in between, with something unsaid and nothing queued, would be for ever.
        while self._fill_queue():
            parts.link.flush()
        events = select.POLLIN | (select.POLLOUT if parts.link.queued else 0)
        idle = self._finishing or parts.link.closed
        parts.loop.watch(parts.link.fileno(), 0 if idle else events, self._port_ready)
        self._stdin.watch(wanted=not self._finishing)
        for stream, output in parts.console.outputs.items():
            events = select.POLLOUT if output.waiting else 0
            parts.loop.watch(output.fd, events, partial(self._flush, stream))

    def _fill_queue(self) -> bool:
        link, before = self._parts.link, self._parts.link.queued
        if link.full:
            return False
        self._send_files()
        self._stdin.send()
        link.send(self._parts.conversation.credit())
        return link.queued > before

    def _has_files(self) -> bool:
        parts = self._parts
        return (
            parts.transfer is not None
            and parts.stage is Stage.SETUP
            and parts.transfer.sending
            and parts.conversation.room(Stream.FILES_IN) > 0
        )

    def _send_files(self) -> None:
        parts = self._parts
        while self._has_files() and parts.transfer is not None and not parts.link.full:
            room = parts.conversation.room(Stream.FILES_IN)
            data = parts.transfer.read(min(room, DATA_PIECE))
            if data:
                parts.link.send(pack(Kind.DATA, Stream.FILES_IN, data))
                parts.conversation.spend(Stream.FILES_IN, len(data))
            self._deadlines.progress()
            if not parts.transfer.sending:
                parts.link.send(pack(Kind.EOF, Stream.FILES_IN))
                parts.conversation.files_sent()

    # --- what became ready -----------------------------------------------------------------------

    def _flush(self, stream: Stream) -> None:
        self._parts.conversation.delivered(stream, self._parts.console.outputs[stream].flush())
        self._check_reader(stream)

    def _check_reader(self, stream: Stream) -> None:
        parts, broken = self._parts, self._parts.console.outputs[stream].broken
        if broken is None or parts.conversation.unwanted(stream):
            return
        self._refuse(stream)
        if broken.errno not in _READER_GONE:
            self._notes.say(f"cannot write to {_NAMES[stream]}: {broken.strerror}")

    def _refuse(self, stream: Stream) -> None:
        self._parts.conversation.close(stream)
        self._parts.link.send(pack(Kind.CLOSE, stream))

    def _gone(self, machine_gone: int) -> None:
        self._parts.loop.watch(machine_gone, 0, _nothing)
        self._parts.loop.after(GONE_S, "gone", self._machine_ended)

    def _machine_ended(self) -> None:
        parts = self._parts
        if parts.stage is Stage.AFTER and parts.copied:
            return
        what = "all files were copied back" if parts.stage is Stage.AFTER else "the job did"
        words = f"the machine ended before {what} (QEMU was killed, or the guest crashed)"
        parts.ending.by_failure(parts.phase(), f"{words}; its console log may say why")

    def _port_ready(self) -> None:
        parts = self._parts
        for frame in parts.link.receive():
            self._interrupts.heard()
            parts.conversation.check(frame)
            self._kinds[frame.kind](frame)
            if parts.ending.decided:
                return
        if parts.link.closed:
            self._machine_ended()

    # --- frames of the agent ---------------------------------------------------------------------

    def _synced(self, frame: Frame) -> None:
        self._parts.conversation.stage = Stage.SETUP
        self._parts.link.send(self._start)
        self._deadlines.begin()

    def _data(self, frame: Frame) -> None:
        parts, stream = self._parts, Stream(frame.stream)
        if parts.conversation.unwanted(stream):
            return
        if stream in parts.console.outputs:
            count = parts.console.outputs[stream].write(frame.payload)
            parts.conversation.delivered(stream, count)
            self._check_reader(stream)
        elif parts.transfer is not None:
            parts.transfer.feed(frame.payload)
            parts.conversation.delivered(stream, len(frame.payload))
            if parts.transfer.complete:
                self._refuse(stream)

    def _eof(self, frame: Frame) -> None:
        transfer = self._parts.transfer
        if frame.stream != Stream.FILES_OUT or transfer is None or transfer.end():
            return
        words = "the machine could not send all that the job changed"
        self._parts.ending.by_failure("copy-out", f"{words}; its disk or memory may be full")

    def _credit(self, frame: Frame) -> None:
        if frame.stream == Stream.FILES_IN and self._parts.stage is Stage.SETUP:
            self._deadlines.progress()

    def _close(self, frame: Frame) -> None:
        if frame.stream == Stream.STDIN:
            self._stdin.refuse()
        elif self._parts.transfer is not None:
            self._parts.transfer.stop_sending()

    def _message(self, frame: Frame) -> None:
        handler = self._messages.get(frame.message["type"])
        if handler is None:
            raise FrameError(f"unknown message '{frame.message['type']}'")
        handler(frame.message)

    def _job_started(self, message: dict[str, Any]) -> None:
        self._parts.conversation.started(message)
        self._deadlines.started()
        # The window may have changed since the request was made.
        self._interrupts.resize()
        self._started()

    def _job_failed(self, message: dict[str, Any]) -> None:
        refusal = self._parts.conversation.failed(message)
        ending = self._parts.ending
        if refusal.code == RUN_FAILED:
            words = f"the machine could not start the job: {refusal.reason}"
            ending.by_failure(self._parts.phase(), words)
        else:
            ending.by_user(refusal.code, "job", refusal.reason)

    def _job_exited(self, message: dict[str, Any]) -> None:
        parts = self._parts
        parts.ending.job = parts.conversation.exited(message)
        parts.console.take_keys()
        parts.console.input.stop()
        self._deadlines.exited()
        if parts.transfer is not None:
            parts.transfer.begin_back()
