"""Cut the content of a disk into chunks: why this way is in ``docs/decisions/0011-chunks.md``.

File systems place files at whole blocks, so content moves by whole blocks. A chunk therefore ends
after a block whose own content says so: wherever the block is, it ends a chunk again.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from mayfly.images.chunks.content import Content
from mayfly.images.chunks.index import CHUNK_MOST, Chunk, Index

BLOCK = 4096
_ZEROS = bytes(BLOCK)
_WINDOW = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutter:
    """How it is cut: every so many blocks on average, or always after so many."""

    blocks: int
    fixed: bool = False

    @property
    def name(self) -> str:
        """Name the way: another one would give other chunks."""
        return f"{'fixed' if self.fixed else 'blocks'}-{self.blocks * BLOCK}"

    @property
    def most(self) -> int:
        """Give the largest chunk, in blocks."""
        return self.blocks if self.fixed else min(8 * self.blocks, CHUNK_MOST // BLOCK)

    @property
    def least(self) -> int:
        """Give the smallest chunk that is not ended by zeros, in blocks."""
        return self.blocks if self.fixed else max(1, self.blocks // 4)

    def ends(self, block: memoryview, count: int, at: int) -> bool:
        """Tell whether a chunk of so many blocks ends with this one, which is at this place."""
        if self.fixed:
            return (at // BLOCK + 1) % self.blocks == 0
        if count < self.least:
            return False
        return count >= self.most or zlib.crc32(block) % (self.blocks - self.least + 1) == 0


CUTTER = Cutter(blocks=4)


def cut(content: Content, sha512: str, cutter: Cutter = CUTTER) -> Index:
    """Give the index of a disk; ``sha512`` is that of the image file that has this content."""
    chunks = tuple(
        Chunk(at, len(data), hashlib.sha256(data).digest()) for at, data in pieces(content, cutter)
    )
    return Index(sha512=sha512, disk_bytes=content.disk_bytes, cutter=cutter.name, chunks=chunks)


def pieces(content: Content, cutter: Cutter = CUTTER) -> Iterator[tuple[int, bytes]]:
    """Give the chunks of a disk with where they are; zeros are left out."""
    begin, parts, count = 0, bytearray(), 0
    for at, block in _blocks(content):
        if count and at != begin + len(parts):
            yield begin, bytes(parts)
            parts, count = bytearray(), 0
        if not count:
            begin = at
        parts += block
        count += 1
        if cutter.ends(block, count, at):
            yield begin, bytes(parts)
            parts, count = bytearray(), 0
    if count:
        yield begin, bytes(parts)


def _blocks(content: Content) -> Iterator[tuple[int, memoryview]]:
    """Give the blocks that are not all zero."""
    done = 0
    for begin, end in content.extents():
        # Extents need not begin with a block; a block must not come twice.
        at = max(done, begin // BLOCK * BLOCK)
        whole = min(content.disk_bytes, -(-end // BLOCK) * BLOCK)
        while at < whole:
            data = content.read(at, min(_WINDOW, whole - at))
            if not data:
                return
            view = memoryview(data)
            for offset in range(0, len(data), BLOCK):
                block = view[offset : offset + BLOCK]
                if block != _ZEROS[: len(block)]:
                    yield at + offset, block
            at += len(data)
        done = max(done, at)
