"""What a guest would read from a disk: of a raw file, or of a qcow2 that qemu-img made for us.

Only what is written is given; all else reads as zeros.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mayfly.errors import Invalid

_HEADER = struct.Struct(">4sIQIIQIIQ")
_OFFSET = ((1 << 56) - 1) & ~511
_COMPRESSED, _ZERO = 1 << 62, 1
_L1_MOST = 32 << 20


class Content(Protocol):
    """The content of a disk."""

    @property
    def disk_bytes(self) -> int:
        """Give the size of the disk."""

    def extents(self) -> Iterator[tuple[int, int]]:
        """Give where something is written: begin and end, in order."""

    def read(self, at: int, size: int) -> bytes:
        """Give some bytes; beyond the end there is nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawContent:
    """A raw file, perhaps with holes."""

    descriptor: int
    disk_bytes: int

    def extents(self) -> Iterator[tuple[int, int]]:
        """Give what is no hole."""
        at = 0
        while at < self.disk_bytes:
            try:
                at = os.lseek(self.descriptor, at, os.SEEK_DATA)
                end = os.lseek(self.descriptor, at, os.SEEK_HOLE)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return
                raise
            yield at, min(end, self.disk_bytes)
            at = end

    def read(self, at: int, size: int) -> bytes:
        """Give some bytes."""
        return os.pread(self.descriptor, size, at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Qcow2Content:
    """A qcow2 of the catalogue: one file, not compressed, without a backing file."""

    descriptor: int
    disk_bytes: int
    cluster: int
    table: tuple[int, ...]
    """Where each cluster of the disk is in the file; 0: nowhere."""

    def extents(self) -> Iterator[tuple[int, int]]:
        """Give what has a cluster."""
        begin = -1
        for number, place in enumerate(self.table):
            if place and begin < 0:
                begin = number
            if not place and begin >= 0:
                yield begin * self.cluster, number * self.cluster
                begin = -1
        if begin >= 0:
            yield begin * self.cluster, min(self.disk_bytes, len(self.table) * self.cluster)

    def read(self, at: int, size: int) -> bytes:
        """Give some bytes; clusters that lie one after the other are read at once."""
        parts = []
        end = min(at + size, self.disk_bytes)
        while at < end:
            number, within = divmod(at, self.cluster)
            place = self.table[number] if number < len(self.table) else 0
            take = min(self.cluster - within, end - at)
            while place and at + take < end and self._follows(number, place, within + take):
                take = min(take + self.cluster, end - at)
            parts.append(os.pread(self.descriptor, take, place + within) if place else bytes(take))
            at += take
        return b"".join(parts)

    def _follows(self, number: int, place: int, reach: int) -> bool:
        ahead = reach // self.cluster
        there = self.table[number + ahead] if number + ahead < len(self.table) else 0
        return there == place + ahead * self.cluster


@contextmanager
def content_of(file: Path) -> Iterator[Content]:
    """Open a disk: raw, or one of the catalogue."""
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        if os.pread(descriptor, 4, 0) == b"QFI\xfb":
            yield _qcow2(descriptor, size)
        else:
            yield RawContent(descriptor=descriptor, disk_bytes=size)
    finally:
        os.close(descriptor)


def _qcow2(descriptor: int, file_bytes: int) -> Qcow2Content:
    head = os.pread(descriptor, 112, 0).ljust(112, b"\0")
    _, version, backing, _, bits, size, crypt, l1_size, l1_at = _HEADER.unpack_from(head)
    (features,) = struct.unpack_from(">Q", head, 72)
    # The dirty bit and a kind of compression do not matter to who reads clusters as they are.
    if version != 3 or backing or crypt or features & ~0b1001 or not 9 <= bits <= 21:
        raise Invalid("this qcow2 is not one that the catalogue makes")
    cluster = 1 << bits
    needed = -(-size // (cluster * (cluster // 8)))
    if l1_size * 8 > _L1_MOST or l1_size < needed:
        raise Invalid("the tables of this qcow2 are damaged")
    table: list[int] = []
    for entry in _entries(descriptor, l1_at, l1_size)[:needed]:
        place = entry & _OFFSET
        count = cluster // 8
        table += _clusters(descriptor, place, count) if place else (0,) * count
    del table[-(-size // cluster) :]
    if any(place + cluster > file_bytes + cluster for place in table):
        raise Invalid("the tables of this qcow2 lead beyond its end")
    return Qcow2Content(descriptor=descriptor, disk_bytes=size, cluster=cluster, table=tuple(table))


def _entries(descriptor: int, at: int, count: int) -> tuple[int, ...]:
    data = os.pread(descriptor, count * 8, at)
    if len(data) != count * 8:
        raise Invalid("the tables of this qcow2 are cut off")
    return struct.unpack(f">{count}Q", data)


def _clusters(descriptor: int, at: int, count: int) -> list[int]:
    entries = _entries(descriptor, at, count)
    if any(entry & _COMPRESSED for entry in entries):
        raise Invalid("this qcow2 is compressed")
    return [0 if entry & _ZERO else entry & _OFFSET for entry in entries]
