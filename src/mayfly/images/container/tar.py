"""Read a tar archive that may be hostile, member by member, from a stream.

Python's own reader keeps all members, and reads an extended header of any length into memory; this
one has bounds for everything. It knows ustar, GNU's long names, and pax.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from mayfly.errors import Invalid

BLOCK = 512
_HEADER_BYTES = 1 << 20
"""Of an extended header: names and attributes."""
_NUMBER_LIMIT = 1 << 62
_XATTR = b"SCHILY.xattr."
_PLAIN = b"\x000"
FILE, LINK, SYMLINK = b"0", b"1", b"2"
CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"3", b"4", b"5", b"6"
_KINDS = frozenset({FILE, LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO})


class Stream(Protocol):
    """Bytes that come one after the other."""

    def read(self, size: int) -> bytes:
        """Give up to ``size`` bytes; none at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member's header."""

    name: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    target: bytes
    offset: int
    """Of its content in the stream."""
    xattrs: dict[bytes, bytes] = field(default_factory=dict)


class Tar:
    """The members of a stream; the content of one can be read before the next is asked for."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._at = 0
        self._left = 0
        self._padding = 0

    def __iter__(self) -> Iterator[Member]:
        """Give the members in their order."""
        long: dict[bytes, bytes] = {}
        while (header := self._header()) is not None:
            kind = header[156:157]
            if kind in b"LK":
                key = b"path" if kind == b"L" else b"linkpath"
                long[key] = self._extended(header).rstrip(b"\0")
            elif kind == b"x":
                long |= _pax_records(self._extended(header))
            elif kind == b"g":
                self._extended(header)
            else:
                member = _member(header, long, self._at)
                long = {}
                self._left, self._padding = member.size, -member.size % BLOCK
                yield member
                self._skip()

    def read(self, size: int) -> bytes:
        """Give up to ``size`` bytes of the member's content; none at its end."""
        data = self._take(min(size, self._left))
        self._left -= len(data)
        return data

    def _skip(self) -> None:
        self._left += self._padding
        self._padding = 0
        while self.read(1 << 20):
            pass

    def _header(self) -> bytes | None:
        header = self._exactly(BLOCK, may_end=True)
        if not header.strip(b"\0"):
            return None
        # Signed sums were made by some old programs; no container tool makes them.
        if sum(header) - sum(header[148:156]) + 8 * 32 != _number(header[148:156], "checksum"):
            raise Invalid(f"the tar is damaged at byte {self._at - BLOCK}: wrong checksum")
        return header

    def _extended(self, header: bytes) -> bytes:
        size = _number(header[124:136], "size")
        if size > _HEADER_BYTES:
            raise Invalid(f"the tar has a header of {size} bytes; at most {_HEADER_BYTES} are read")
        return self._exactly(size + -size % BLOCK)[:size]

    def _exactly(self, size: int, *, may_end: bool = False) -> bytes:
        data = b""
        while len(data) < size:
            more = self._stream.read(size - len(data))
            if not more and may_end and not data:
                return b""
            if not more:
                raise Invalid("the tar is truncated")
            data += more
        self._at += size
        return data

    def _take(self, size: int) -> bytes:
        if not size:
            return b""
        data = self._stream.read(size)
        if not data:
            raise Invalid("the tar is truncated")
        self._at += len(data)
        return data


def _member(header: bytes, long: dict[bytes, bytes], offset: int) -> Member:
    kind = header[156:157]
    if kind in _PLAIN or kind == b"7":
        kind = FILE
    if any(key.startswith(b"GNU.sparse") for key in long) or kind == b"S":
        raise Invalid("the tar has a sparse file, which container images do not have")
    if kind not in _KINDS:
        raise Invalid(f"the tar has a member of type {kind!r}, which is not known")
    name = long.get(b"path") or _name(header)
    if kind == FILE and name.endswith(b"/"):
        kind = DIRECTORY  # as tar did before there were types
    size = _decimal(long, b"size", _number(header[124:136], "size"))
    return Member(
        name=name,
        kind=kind,
        mode=_number(header[100:108], "mode") & 0o7777,
        uid=_decimal(long, b"uid", _number(header[108:116], "uid")),
        gid=_decimal(long, b"gid", _number(header[116:124], "gid")),
        mtime=_decimal(long, b"mtime", _number(header[136:148], "mtime")),
        size=size if kind == FILE else 0,
        target=long.get(b"linkpath") or header[157:257].split(b"\0", 1)[0],
        offset=offset,
        xattrs={
            key.removeprefix(_XATTR): value for key, value in long.items() if key.startswith(_XATTR)
        },
    )


def _name(header: bytes) -> bytes:
    name = header[:100].split(b"\0", 1)[0]
    prefix = header[345:500].split(b"\0", 1)[0]
    return prefix + b"/" + name if prefix and header[257:263] == b"ustar\0" else name


def _number(text: bytes, what: str) -> int:
    """Read a field: octal digits, or a binary number when its first bit is set."""
    if text[0] == 0xFF:
        return 0  # below zero: a time before 1970
    if text[0] & 0x80:
        value = int.from_bytes(bytes([text[0] & 0x7F]) + text[1:], "big")
    else:
        digits = text.split(b"\0", 1)[0].strip(b" ")
        if digits.strip(b"01234567"):
            raise Invalid(f"the tar is damaged: its {what} is {digits!r}")
        value = int(digits or b"0", 8)
    if value >= _NUMBER_LIMIT:
        raise Invalid(f"the tar is damaged: its {what} is {value}")
    return value


def _decimal(long: dict[bytes, bytes], key: bytes, other: int) -> int:
    """Give a number of a pax header, or the header's own; fractions and signs are cut off."""
    if key not in long:
        return other
    whole = long[key].split(b".", 1)[0]
    if whole.startswith(b"-"):
        return 0
    if not whole.isdigit() or len(whole) > 18:
        raise Invalid(f"the tar is damaged: its {key.decode()} is {long[key][:40]!r}")
    return int(whole)


def _pax_records(data: bytes) -> dict[bytes, bytes]:
    found = {}
    while data:
        length, _, _ = data.partition(b" ")
        if not length.isdigit() or len(length) > 9:
            raise Invalid("the tar is damaged: an extended header cannot be read")
        record, data = data[: int(length)], data[int(length) :]
        key, equals, value = record[len(length) + 1 : -1].partition(b"=")
        if len(record) != int(length) or not equals or record[-1:] != b"\n":
            raise Invalid("the tar is damaged: an extended header cannot be read")
        found[key] = value
    return found
