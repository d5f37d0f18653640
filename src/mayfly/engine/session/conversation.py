"""What an agent may say when, and how many bytes each side may send: the book of a session.

The agent is as hostile as its machine: whatever is not in order raises ``FrameError``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from mayfly.engine.session.job import BY_SIGNAL
from mayfly.engine.session.notes import printable
from mayfly.engine.session.signals import parse_name
from mayfly.guest.framing import (
    INITIAL_CREDIT,
    Frame,
    FrameError,
    Kind,
    Stream,
    credit_of,
    pack_credit,
)

CREDIT_STEP = 128 << 10
"""Credit is given back in such steps, not for every write."""
REASON_LIMIT = 500
_INBOUND = (Stream.STDOUT, Stream.STDERR, Stream.FILES_OUT)
_OUTBOUND = (Stream.STDIN, Stream.FILES_IN)


class Stage(IntEnum):
    """How far a session is."""

    SYNC = 0
    """The agent has not answered yet."""
    SETUP = 1
    """The request is under way, the work directory with it."""
    JOB = 2
    AFTER = 3
    """The job has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The job could not be started."""

    code: int
    reason: str


class Conversation:
    """Checks the order of frames, and keeps the credit of every stream."""

    def __init__(self, *, files_in: bool, files_out: bool) -> None:
        self.stage = Stage.SYNC
        self._files_in_due = files_in
        self._files_out = files_out
        self._granted = dict.fromkeys(_INBOUND, INITIAL_CREDIT)
        self._owed = dict.fromkeys(_INBOUND, 0)
        self._room = dict.fromkeys(_OUTBOUND, INITIAL_CREDIT)
        self._ended: set[Stream] = set()
        self._unwanted: set[Stream] = set()
        """Streams that we closed: the agent need not end them."""

    def check(self, frame: Frame) -> None:
        """Refuse a frame that is out of order or over its credit."""
        if frame.kind is Kind.SYNC and self.stage is not Stage.SYNC:
            raise FrameError("a second SYNC")
        if frame.kind in {Kind.SYNC, Kind.MESSAGE}:
            return
        try:
            stream = Stream(frame.stream)
        except ValueError as error:
            raise FrameError(f"no such stream: {frame.stream}") from error
        if frame.kind in {Kind.DATA, Kind.EOF}:
            self._check_inbound(frame, stream)
        elif stream not in _OUTBOUND:
            raise FrameError(f"{frame.kind.name} on {stream.name}, which the machine writes")
        elif frame.kind is Kind.CREDIT:
            self._add_room(stream, credit_of(frame.payload))

    def _check_inbound(self, frame: Frame, stream: Stream) -> None:
        what = f"{frame.kind.name} on {stream.name}"
        if stream not in _INBOUND or (stream is Stream.FILES_OUT and not self._files_out):
            raise FrameError(f"{what}, which the machine does not write")
        due = Stage.AFTER if stream is Stream.FILES_OUT else Stage.JOB
        if self.stage is not due:
            raise FrameError(f"{what} at the stage {self.stage.name}")
        if stream in self._ended:
            raise FrameError(f"{what} after its end")
        if frame.kind is Kind.EOF:
            self._ended.add(stream)
            return
        self._granted[stream] -= len(frame.payload)
        if self._granted[stream] < 0:
            raise FrameError(f"{what}: {-self._granted[stream]} bytes more than it had credit for")

    def _add_room(self, stream: Stream, count: int) -> None:
        self._room[stream] += count
        if self._room[stream] > INITIAL_CREDIT:
            raise FrameError(f"CREDIT on {stream.name} for bytes that were never sent")

    # --- what we may send, and what we give back -------------------------------------------------

    def room(self, stream: Stream) -> int:
        """Give how many bytes we may send."""
        return self._room[stream]

    def spend(self, stream: Stream, count: int) -> None:
        """Note that we sent so many."""
        self._room[stream] -= count

    def delivered(self, stream: Stream, count: int) -> None:
        """Note that bytes of the machine reached their reader."""
        self._owed[stream] += count

    def credit(self) -> bytes:
        """Make the CREDIT frames that are due."""
        frames = b""
        for stream, count in self._owed.items():
            if count >= CREDIT_STEP and stream not in self._ended | self._unwanted:
                self._owed[stream] = 0
                self._granted[stream] += count
                frames += pack_credit(stream, count)
        return frames

    def ended(self, stream: Stream) -> bool:
        """Whether the machine's end of a stream came, or we wanted no more of it."""
        return stream in self._ended | self._unwanted

    def unwanted(self, stream: Stream) -> bool:
        """Whether we wanted no more of it."""
        return stream in self._unwanted

    def close(self, stream: Stream) -> None:
        """Note that we want no more of a stream."""
        self._unwanted.add(stream)

    def files_sent(self) -> None:
        """Note that the whole work directory is under way."""
        self._files_in_due = False

    # --- messages --------------------------------------------------------------------------------

    def started(self, message: dict[str, Any]) -> None:
        """Check that the job may start now."""
        self._expect(Stage.SETUP, message)
        _number(message, "pid", 1, 1 << 31)
        if self._files_in_due:
            raise FrameError("'started' before it had the whole work directory")
        self.stage = Stage.JOB

    def failed(self, message: dict[str, Any]) -> Refusal:
        """Read why the job did not start."""
        self._expect(Stage.SETUP, message)
        reason = message.get("reason")
        if not isinstance(reason, str):
            raise FrameError("'failed' without a reason")
        code = _number(message, "code", 125, 127)
        return Refusal(code=code, reason=printable(reason, REASON_LIMIT))

    def exited(self, message: dict[str, Any]) -> tuple[int, str]:
        """Read how the job ended: its exit status as a shell has it, and in words."""
        self._expect(Stage.JOB, message)
        for stream in (Stream.STDOUT, Stream.STDERR):
            if not self.ended(stream):
                raise FrameError(f"'exit' before the end of {stream.name}")
        status = _exit_status(message)
        self.stage = Stage.AFTER
        return status

    def bye(self, message: dict[str, Any]) -> None:
        """Check that the conversation may end now."""
        self._expect(Stage.AFTER, message)
        if self._files_out and not self.ended(Stream.FILES_OUT):
            raise FrameError("'bye' before the end of FILES_OUT")

    def _expect(self, stage: Stage, message: dict[str, Any]) -> None:
        if self.stage is not stage:
            raise FrameError(f"'{message['type']}' at the stage {self.stage.name}")


def _exit_status(message: dict[str, Any]) -> tuple[int, str]:
    code, name = message.get("code"), message.get("signal")
    if name is None:
        code = _number(message, "code", 0, 255)
        return code, f"the job ended with exit status {code}"
    number = parse_name(name) if isinstance(name, str) else None
    if number is None or code is not None:
        raise FrameError("'exit' with neither a status nor a signal")
    return 128 + number, f"{BY_SIGNAL}{printable(name, 20)}"


def _number(message: dict[str, Any], key: str, least: int, most: int) -> int:
    value = message.get(key)
    if type(value) is not int or not least <= value <= most:
        raise FrameError(f"'{message['type']}' with {key} {printable(repr(value), 40)}")
    return value
