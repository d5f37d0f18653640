"""Which chunks of an image are here, in a file that is being put together or in an image.

What is there is noted in a file of bits, so that another process can serve it meanwhile, and the
next call goes on after a kill.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mayfly.images.chunks.content import Content
from mayfly.images.chunks.index import Chunk, Index

DISK, BITS, INDEX = "disk", "bits", "index"


def covers(bits: bytes | None, part: tuple[int, int]) -> bool:
    """Tell whether somebody with these bits has all chunks of a part; None: he has all."""
    if bits is None:
        return True
    first, last = part
    mask = (1 << (last - first + 1)) - 1
    return (
        int.from_bytes(bits[first >> 3 : (last >> 3) + 1], "little") >> (first & 7) & mask == mask
    )


def runs_of(chunks: tuple[Chunk, ...]) -> Iterator[tuple[int, int]]:
    """Give where chunks lie that follow each other without zeros between: begin and end."""
    begin = end = -1
    for chunk in chunks:
        if chunk.at != end:
            if end > begin:
                yield begin, end
            begin = chunk.at
        end = chunk.at + chunk.size
    if end > begin:
        yield begin, end


def read_runs(descriptor: int, chunks: tuple[Chunk, ...]) -> bytes:
    """Give chunks of a file, one after the other."""
    return b"".join(os.pread(descriptor, end - at, at) for at, end in runs_of(chunks))


class Have:
    """A disk that is put together from chunks that were checked."""

    def __init__(self, index: Index, descriptor: int, bits: mmap.mmap | bytearray) -> None:
        self.index = index
        self.descriptor = descriptor
        self._lock = threading.Lock()
        self._bits = bits
        self._left = sum(not self.has(number) for number in range(len(index.chunks)))

    @property
    def left(self) -> int:
        """Give how many chunks are missing."""
        return self._left

    @property
    def here_bytes(self) -> int:
        """Give how many bytes are here."""
        return sum(chunk.size for number, chunk in enumerate(self.index.chunks) if self.has(number))

    def bits(self) -> bytes:
        """Give a bit for each chunk that is here."""
        return bytes(self._bits)

    def has(self, number: int) -> bool:
        """Tell whether a chunk is here."""
        return bool(self._bits[number >> 3] & 1 << (number & 7))

    def put(self, number: int, data: bytes | memoryview) -> int:
        """Take a chunk that was checked; gives how many bytes of it were missing."""
        return self.put_all(number, number, data)

    def put_all(self, first: int, last: int, data: bytes | memoryview) -> int:
        """Take chunks that were checked, one after the other; gives how much was missing."""
        view = memoryview(data)
        for at, end in runs_of(self.index.chunks[first : last + 1]):
            os.pwrite(self.descriptor, view[: end - at], at)
            view = view[end - at :]
        new = 0
        with self._lock:
            for number in range(first, last + 1):
                if not self.has(number):
                    self._bits[number >> 3] |= 1 << (number & 7)
                    self._left -= 1
                    new += self.index.chunks[number].size
        return new

    def read(self, first: int, last: int) -> bytes | None:
        """Give these chunks."""
        if not 0 <= first <= last < len(self.index.chunks):
            return None
        if not covers(self.bits(), (first, last)):
            return None
        return read_runs(self.descriptor, self.index.chunks[first : last + 1])

    def check(self) -> None:
        """Forget what is not as it must be: this host may have crashed since."""
        for number, chunk in enumerate(self.index.chunks):
            if self.has(number):
                data = os.pread(self.descriptor, chunk.size, chunk.at)
                if hashlib.sha256(data).digest() != chunk.digest:
                    self._bits[number >> 3] &= ~(1 << (number & 7))
                    self._left += 1


class Stored:
    """The chunks of an image that is here as a whole."""

    def __init__(self, index: Index, content: Content) -> None:
        self._index, self._content = index, content

    def bits(self) -> bytes:
        """It has all."""
        count = len(self._index.chunks)
        data = bytearray(b"\xff" * (count // 8))
        if count % 8:
            data.append((1 << count % 8) - 1)
        return bytes(data)

    def read(self, first: int, last: int) -> bytes | None:
        """Give these chunks."""
        if not 0 <= first <= last < len(self._index.chunks):
            return None
        runs = runs_of(self._index.chunks[first : last + 1])
        return b"".join(self._content.read(at, end - at) for at, end in runs)


@contextmanager
def open_have(index: Index, directory: Path) -> Iterator[Have]:
    """Open what is here of a disk, or begin with it; what is here is checked first."""
    size = max(1, -(-len(index.chunks) // 8))
    disk, bits = _open(directory / DISK), _open(directory / BITS)
    try:
        os.ftruncate(disk, index.disk_bytes)
        os.ftruncate(bits, size)
        with mmap.mmap(bits, size) as mapped:
            have = Have(index, disk, mapped)
            have.check()
            yield have
    finally:
        os.close(bits)
        os.close(disk)


def _open(file: Path) -> int:
    return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
