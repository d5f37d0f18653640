"""The index of an image: of which chunks its content consists. ``docs/reference/chunks.md``.

Text, so that it can be signed as lists are: a few lines of facts, then a line for each chunk and
each run of zeros, in the order of the disk.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from mayfly.errors import Untrusted
from mayfly.images.formats import LARGEST_BYTES

FIRST_LINE = "mayfly-chunks 1"
INDEX_MOST = 64 << 20
CHUNK_MOST = 1 << 20
CHUNKS_MOST = 1 << 20
_NUMBER = re.compile(r"[1-9][0-9]{0,15}")
_SHA512 = re.compile(r"[0-9a-f]{128}")
_CUTTER = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some bytes of a disk that are not all zero."""

    at: int
    """Where they are on the disk."""
    size: int
    digest: bytes
    """SHA-256."""


@dataclass(frozen=True, kw_only=True)
class Index:
    """What a disk consists of; between the chunks are zeros."""

    sha512: str
    """Of the image file that has this content: what a list vouches for."""
    disk_bytes: int
    cutter: str
    """How it was cut; another way would give other chunks."""
    chunks: tuple[Chunk, ...]

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Give where each chunk begins when only chunks are counted, and where the last ends."""
        return tuple(accumulate((chunk.size for chunk in self.chunks), initial=0))

    @property
    def content_bytes(self) -> int:
        """Give the size of all chunks together."""
        return self.starts[-1]

    @cached_property
    def key(self) -> str:
        """Name the index: by this its chunks are asked for."""
        return hashlib.sha256(render(self).encode()).hexdigest()

    def chunk_at(self, at: int) -> int:
        """Give the number of the chunk at a place, when only chunks are counted."""
        return bisect_right(self.starts, at) - 1


def render(index: Index) -> str:
    """Write an index."""
    lines = [
        FIRST_LINE,
        f"image-sha512 {index.sha512}",
        f"disk-bytes {index.disk_bytes}",
        f"cutter {index.cutter}",
    ]
    at = 0
    for chunk in index.chunks:
        if chunk.at > at:
            lines.append(f"zeros {chunk.at - at}")
        lines.append(f"{chunk.size} {base64.b64encode(chunk.digest).decode()}")
        at = chunk.at + chunk.size
    if index.disk_bytes > at:
        lines.append(f"zeros {index.disk_bytes - at}")
    return "\n".join([*lines, "end", ""])


def parse_index(text: bytes) -> Index:
    """Read an index strictly; raises ``Untrusted``."""
    if len(text) > INDEX_MOST:
        raise Untrusted(f"an index of {len(text)} bytes is larger than any need be")
    try:
        # What was signed has the line ends of mail.
        lines = text.decode("ascii").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise _damaged(0, "it is not ASCII") from error
    if len(lines) < 6 or lines[0] != FIRST_LINE:
        raise _damaged(1, f"it does not begin with '{FIRST_LINE}'")
    if lines[-2:] != ["end", ""]:
        raise _damaged(len(lines), "its end is missing")
    sha512 = _fact(lines, 1, "image-sha512", _SHA512)
    disk_bytes = int(_fact(lines, 2, "disk-bytes", _NUMBER))
    cutter = _fact(lines, 3, "cutter", _CUTTER)
    if not disk_bytes <= LARGEST_BYTES:
        raise _damaged(3, "the disk is too large")
    chunks = tuple(_chunks(lines[4:-2], disk_bytes))
    index = Index(sha512=sha512, disk_bytes=disk_bytes, cutter=cutter, chunks=chunks)
    if render(index) != "\n".join(lines):
        raise _damaged(0, "it is not written in the one way that there is")
    return index


def _fact(lines: list[str], number: int, key: str, form: re.Pattern[str]) -> str:
    name, _, value = lines[number].partition(" ")
    if name != key or not form.fullmatch(value):
        raise _damaged(number + 1, f"it has no {key}")
    return value


def _chunks(lines: list[str], disk_bytes: int) -> Iterator[Chunk]:
    if len(lines) > 2 * CHUNKS_MOST:
        raise _damaged(0, "it has more chunks than any need be")
    at = 0
    for number, line in enumerate(lines, 5):
        kind, _, value = line.partition(" ")
        if kind == "zeros" and _NUMBER.fullmatch(value):
            size = int(value)
        elif _NUMBER.fullmatch(kind) and int(kind) <= CHUNK_MOST:
            size = int(kind)
            yield Chunk(at, size, _digest(number, value))
        else:
            raise _damaged(number, "it is neither a chunk nor zeros")
        at += size
        if at > disk_bytes:
            raise _damaged(number, "it reaches beyond the disk")
    if at != disk_bytes:
        raise _damaged(0, f"it has {at} of {disk_bytes} bytes")


def _digest(number: int, text: str) -> bytes:
    try:
        digest = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _damaged(number, "its digest is not base64") from error
    if len(digest) != 32:
        raise _damaged(number, "its digest is no SHA-256")
    return digest


def _damaged(line: int, why: str) -> Untrusted:
    where = f", line {line}" if line else ""
    return Untrusted(f"the index of the image is damaged{where}: {why}")
