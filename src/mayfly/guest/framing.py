"""The frames that host and agent exchange over a virtio-serial port.

A frame is an 8-byte header, big-endian ``kind u8, stream u8, 0 u16, length u32``, then ``length``
bytes of payload. ``docs/reference/agent-protocol.md`` has the meaning of every message.
Both ends are strict: a frame that is too long or of an unknown kind raises ``FrameError``.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Generator
from enum import IntEnum
from typing import Any, NamedTuple

PROTOCOL = 1
"""Version of the messages; host and agent both speak N and N-1."""

HEADER = struct.Struct(">BBHI")
DATA_LIMIT = 1 << 20
"""Longest payload of one frame, in bytes."""
MESSAGE_LIMIT = 16 << 20
"""Longest JSON message, put together from its parts, in bytes."""
INITIAL_CREDIT = 1 << 20
"""Bytes that may be sent on a stream before the first CREDIT."""
NONCE_LENGTH = 16
SYNC_STREAM = 0x4D
SYNC_FILLER = 0x5946


class Kind(IntEnum):
    """What a frame is for."""

    SYNC = 0
    """Start of a conversation: payload is a nonce, which the agent sends back."""
    MESSAGE = 1
    """A JSON object, UTF-8; stream 1 means that more of it follows, 0 that it is whole."""
    DATA = 2
    """Bytes of a stream."""
    EOF = 3
    """The sender has no more bytes for this stream."""
    CREDIT = 4
    """The receiver took so many bytes (u32) of this stream and has room for as many again."""
    CLOSE = 5
    """The receiver wants no more of this stream; a writing job gets SIGPIPE."""


class Stream(IntEnum):
    """The byte streams of a session."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2
    FILES_IN = 3
    """Work directory, host to guest: entries of ``mayfly.guest.tree``."""
    FILES_OUT = 4
    """What the job changed, guest to host."""


_KINDS = {int(kind): kind for kind in Kind}
_PLAIN = frozenset(map(int, (Kind.MESSAGE, Kind.DATA, Kind.EOF, Kind.CLOSE)))
"""Kinds whose header needs no further look when it is not too long."""

SYNC_HEADER = HEADER.pack(Kind.SYNC, SYNC_STREAM, SYNC_FILLER, NONCE_LENGTH)
CREDIT_PAYLOAD = struct.Struct(">I")


class FrameError(ValueError):
    """The peer sent what is no frame of this protocol."""


class Frame(NamedTuple):
    """One received frame; a MESSAGE arrives whole, with ``message`` filled."""

    kind: Kind
    stream: int
    payload: bytes
    message: dict[str, Any]


def pack(kind: Kind, stream: int, payload: bytes = b"") -> bytes:
    """Make one frame."""
    return HEADER.pack(kind, stream, 0, len(payload)) + payload


def pack_sync(nonce: bytes) -> bytes:
    """Make the frame that starts a conversation."""
    return SYNC_HEADER + nonce


def pack_credit(stream: int, count: int) -> bytes:
    """Grant ``count`` more bytes on ``stream``."""
    return pack(Kind.CREDIT, stream, CREDIT_PAYLOAD.pack(count))


def pack_message(message: dict[str, Any]) -> bytes:
    """Make the frame, or the several frames, of one JSON message."""
    text = json.dumps(message, separators=(",", ":")).encode("ascii")
    if len(text) > MESSAGE_LIMIT:
        raise FrameError(f"message of {len(text)} bytes exceeds {MESSAGE_LIMIT}")
    parts = [text[at : at + DATA_LIMIT] for at in range(0, len(text), DATA_LIMIT)]
    frames = [pack(Kind.MESSAGE, 1, part) for part in parts[:-1]]
    return b"".join([*frames, pack(Kind.MESSAGE, 0, parts[-1])])


class Parser:
    """Turns bytes, however they were cut, into frames.

    ``synced=False`` skips everything up to the first SYNC frame, which is how a conversation
    begins after a restore or a reconnect.
    """

    def __init__(self, *, synced: bool = False, message_limit: int = MESSAGE_LIMIT) -> None:
        self._buffer = bytearray()
        self._synced = synced
        self._message = bytearray()
        self._message_limit = message_limit

    def reset(self) -> None:
        """Forget everything and wait for a SYNC."""
        self._buffer.clear()
        self.resync()

    def resync(self) -> None:
        """Wait for a SYNC, which may be among the bytes that are here already."""
        self._message.clear()
        self._synced = False

    def feed(self, data: bytes | bytearray | memoryview) -> Generator[Frame, None, None]:
        """Take more bytes and yield the frames that they complete."""
        self._buffer += data
        if not self._synced and not self._find_sync():
            return
        start = 0
        try:
            while len(self._buffer) - start >= HEADER.size:
                kind, stream, filler, length = HEADER.unpack_from(self._buffer, start)
                if kind not in _PLAIN or filler or length > DATA_LIMIT:
                    self._check(kind, stream, filler, length)
                end = start + HEADER.size + length
                if len(self._buffer) < end:
                    break
                # The view must be gone before the buffer may shrink.
                with memoryview(self._buffer) as view:
                    payload = bytes(view[start + HEADER.size : end])
                start = end
                frame = self._frame(_KINDS[kind], stream, payload)
                if frame is not None:
                    yield frame
        finally:
            del self._buffer[:start]

    def _find_sync(self) -> bool:
        at = self._buffer.find(SYNC_HEADER)
        if at < 0:
            # A header may be cut in two: its first bytes stay.
            del self._buffer[: max(0, len(self._buffer) - len(SYNC_HEADER) + 1)]
            return False
        del self._buffer[:at]
        self._synced = True
        return True

    def _check(self, kind: int, stream: int, filler: int, length: int) -> None:
        if kind == Kind.SYNC:
            if (stream, filler, length) != (SYNC_STREAM, SYNC_FILLER, NONCE_LENGTH):
                raise FrameError("malformed SYNC")
            return
        if kind not in _KINDS or filler != 0:
            raise FrameError(f"no such frame: kind {kind}, filler {filler}")
        if length > DATA_LIMIT:
            raise FrameError(f"frame of {length} bytes exceeds {DATA_LIMIT}")
        if kind == Kind.CREDIT and length != CREDIT_PAYLOAD.size:
            raise FrameError(f"CREDIT of {length} bytes")

    def _frame(self, kind: Kind, stream: int, payload: bytes) -> Frame | None:
        if kind is not Kind.MESSAGE:
            return Frame(kind, stream, payload, {})
        self._message += payload
        if len(self._message) > self._message_limit:
            raise FrameError(f"message exceeds {self._message_limit} bytes")
        if stream == 1:
            return None
        text, self._message = bytes(self._message), bytearray()
        return Frame(kind, stream, b"", parse_message(text))


def parse_message(text: bytes) -> dict[str, Any]:
    """Read one JSON object with a ``type``, or raise ``FrameError``."""
    try:
        message = json.loads(str(text, "utf-8"))
    except (ValueError, RecursionError) as error:
        raise FrameError(f"not JSON: {error}") from error
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise FrameError("a message is a JSON object with a type")
    return message


def credit_of(payload: bytes) -> int:
    """Read the byte count of a CREDIT frame."""
    return int(CREDIT_PAYLOAD.unpack(payload)[0])
