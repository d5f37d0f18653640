"""How files travel: a stream of entries, the same in both directions.

An entry is a u32 length, big-endian, then a JSON list of that length, then ``size`` bytes of
content when it is a file. The last entry is an ``end``. This module only writes and reads the
format; what to send, and what to accept from whom, is decided by its users.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

LENGTH = struct.Struct(">I")
HEADER_LIMIT = 64 << 10
"""Longest JSON header of an entry, in bytes."""


class Type(StrEnum):
    """What an entry is."""

    FILE = "f"
    DIRECTORY = "d"
    LINK = "l"
    FIFO = "p"
    DELETED = "x"
    """The path was removed by the job."""
    NOTE = "n"
    """Something that could not be sent; ``target`` says why."""
    END = "e"


_WITH_TARGET = frozenset({Type.LINK, Type.NOTE})


class TreeError(ValueError):
    """The stream is not a stream of entries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One path of a tree; ``path`` is relative, "" is the top itself."""

    type: Type
    path: str = ""
    mode: int = 0
    size: int = 0
    mtime_ns: int = 0
    target: str = ""


def pack_entry(entry: Entry) -> bytes:
    """Make the header of one entry; a file's content follows it."""
    record = [entry.type.value, entry.path, entry.mode, entry.size, entry.mtime_ns, entry.target]
    text = json.dumps(record, separators=(",", ":")).encode("ascii")
    return LENGTH.pack(len(text)) + text


def parse_entry(text: bytes) -> Entry:
    """Read one header, or raise ``TreeError``; the path is not judged here."""
    try:
        kind, path, mode, size, mtime_ns, target = json.loads(str(text, "utf-8"))
        entry = Entry(
            type=Type(kind), path=path, mode=mode, size=size, mtime_ns=mtime_ns, target=target
        )
    except (ValueError, TypeError, RecursionError) as error:
        raise TreeError(f"not an entry: {error}") from error
    numbers = (entry.mode, entry.size, entry.mtime_ns)
    if not all(type(value) is int for value in numbers) or not 0 <= entry.size < 1 << 62:
        raise TreeError("an entry's numbers are out of range")
    if type(entry.path) is not str or type(entry.target) is not str:
        raise TreeError("an entry's path is text")
    if entry.target and entry.type not in _WITH_TARGET:
        raise TreeError("a target on what is neither a link nor a note")
    if not (-(1 << 62) < entry.mtime_ns < 1 << 62 and 0 <= entry.mode < 1 << 16):
        raise TreeError("an entry's numbers are out of range")
    try:
        os.fsencode(entry.path + entry.target)
    except UnicodeEncodeError as error:
        raise TreeError("an entry's path cannot be a file name") from error
    return entry


class EntryParser:
    """Turns bytes, however they were cut, into entries and pieces of their content."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._remaining = 0
        self.ended = False
        self.header_bytes = 0
        """Length of the header that came last, as it was sent."""

    def feed(self, data: bytes) -> Iterator[Entry | bytes]:
        """Take more bytes; yield an ``Entry`` at its header, then its content as ``bytes``."""
        if not self._buffer and 0 < len(data) <= self._remaining:
            # Content and nothing else, as most of a large file is: no copy.
            self._remaining -= len(data)
            yield data
            return
        self._buffer += data
        while not self.ended:
            if self._remaining:
                if not self._buffer:
                    return
                piece = bytes(self._buffer[: self._remaining])
                del self._buffer[: len(piece)]
                self._remaining -= len(piece)
                yield piece
                continue
            entry = self._header()
            if entry is None:
                return
            self._remaining = entry.size if entry.type is Type.FILE else 0
            self.ended = entry.type is Type.END
            yield entry

    def _header(self) -> Entry | None:
        if len(self._buffer) < LENGTH.size:
            return None
        (length,) = LENGTH.unpack_from(self._buffer)
        if length > HEADER_LIMIT:
            raise TreeError(f"an entry's header of {length} bytes exceeds {HEADER_LIMIT}")
        if len(self._buffer) < LENGTH.size + length:
            return None
        text = bytes(self._buffer[LENGTH.size : LENGTH.size + length])
        del self._buffer[: LENGTH.size + length]
        self.header_bytes = length
        return parse_entry(text)
