"""What this host can give to its neighbours: its images, and disks that are being put together."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from mayfly.errors import Invalid, Missing, Untrusted
from mayfly.images.catalogue.record import read_record
from mayfly.images.chunks.content import content_of
from mayfly.images.chunks.have import BITS, DISK, INDEX, Stored, covers, read_runs
from mayfly.images.chunks.index import Index, parse_index
from mayfly.images.chunks.shelf import PLACE

LOOK_S = 5.0
"""How often, at most, all is looked through for what nobody here knows."""
_KEY = re.compile(r"[0-9a-f]{64}")


class Holding(Protocol):
    """Chunks of one image that can be given to others."""

    @property
    def index(self) -> Index:
        """Say of what it has chunks."""

    def is_there(self) -> bool:
        """Tell whether it is still the same."""

    def bits(self) -> bytes:
        """Give a bit for each chunk that is here."""

    def read(self, first: int, last: int) -> bytes | None:
        """Give these chunks, one after the other; None when one of them is missing."""

    def close(self) -> None:
        """Let it go."""


class ImageHolding:
    """An image of the catalogue."""

    def __init__(self, index: Index, disk: Path) -> None:
        self._stack = contextlib.ExitStack()
        self._disk, self._found = disk, disk.stat()
        self._stored = Stored(index, self._stack.enter_context(content_of(disk)))
        self.index = index

    def is_there(self) -> bool:
        """Tell whether the image was not removed or replaced."""
        return _is_same(self._disk, self._found)

    def bits(self) -> bytes:
        """It has all."""
        return self._stored.bits()

    def read(self, first: int, last: int) -> bytes | None:
        """Give these chunks."""
        return self._stored.read(first, last)

    def close(self) -> None:
        """Let it go."""
        self._stack.close()


class GrowingHolding:
    """A disk that another process puts together just now."""

    def __init__(self, index: Index, place: Path) -> None:
        self.index = index
        self._place = place
        self._descriptor = os.open(place / DISK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._found = os.fstat(self._descriptor)

    def is_there(self) -> bool:
        """Tell whether it is still being put together."""
        return _is_same(self._place / DISK, self._found)

    def bits(self) -> bytes:
        """Give a bit for each chunk that is here by now."""
        try:
            return (self._place / BITS).read_bytes()
        except OSError:
            return b""

    def read(self, first: int, last: int) -> bytes | None:
        """Give these chunks."""
        if not covers(self.bits(), (first, last)):
            return None
        return read_runs(self._descriptor, self.index.chunks[first : last + 1])

    def close(self) -> None:
        """Let it go."""
        os.close(self._descriptor)


def _is_same(file: Path, found: os.stat_result) -> bool:
    try:
        return os.path.samestat(file.stat(), found)
    except OSError:
        return False


@dataclass(kw_only=True)
class Holdings:
    """All that can be given; what is open stays open, and is let go when it is gone."""

    images: tuple[Path, ...]
    """Directories of images."""
    downloads: Path
    clock: Callable[[], float] = time.monotonic
    _open: dict[str, Holding] = field(default_factory=dict)
    _looked_at: float = float("-inf")
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def find(self, key: str) -> Holding:
        """Give what is here of an index; raises ``Missing``."""
        if not _KEY.fullmatch(key):
            raise Missing("that is no index")
        with self._lock:
            found = self._open.get(key)
            if found is not None and found.is_there():
                return found
            if found is not None:
                self._open.pop(key).close()
            if (made := self._growing(key)) is None:
                self._look()
                made = self._open.get(key)
            if made is None:
                raise Missing("nothing is here of that index")
            self._open[key] = made
            return made

    def _growing(self, key: str) -> Holding | None:
        place = self.downloads / f"index-{key}"
        with contextlib.suppress(OSError, Untrusted):
            index = parse_index((place / INDEX).read_bytes())
            if index.key == key:
                return GrowingHolding(index, place)
        return None

    def _look(self) -> None:
        """Look through all images, but not for each caller who asks for what is not there."""
        if self.clock() - self._looked_at < LOOK_S:
            return
        self._looked_at = self.clock()
        for index, disk in self._stored():
            if index.key not in self._open:
                with contextlib.suppress(OSError, Invalid):
                    self._open[index.key] = ImageHolding(index, disk)

    def _stored(self) -> Iterator[tuple[Index, Path]]:
        for directory in self.images:
            for place in sorted(directory.glob("[!.]*/")):
                with contextlib.suppress(OSError, Untrusted, Missing):
                    image = read_record(place)
                    index = parse_index((directory / PLACE / image.sha512).read_bytes())
                    yield index, image.disk
