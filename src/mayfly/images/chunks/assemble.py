"""Have a disk from its chunks: what is here, what neighbours have, and the rest from its source."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mayfly.images.chunks.gather import Crowd, Gathered, gather, take_local
from mayfly.images.chunks.have import DISK, INDEX, open_have
from mayfly.images.chunks.index import Index, render
from mayfly.images.chunks.shelf import Shelf
from mayfly.images.lists.files import write_whole
from mayfly.images.room import check_room
from mayfly.images.transfer.pace import Meter, Pace, Watch, unwatched
from mayfly.images.transfer.part import Downloads
from mayfly.images.trouble import explained


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembled:
    """A disk that is complete, and where its bytes came from."""

    disk: Path
    """Raw, with holes; it is gone when the last who wanted it is done."""
    local_bytes: int
    gathered: Gathered

    @property
    def fetched_bytes(self) -> int:
        """Give how much had to be fetched."""
        return sum(self.gathered.fetched.values())


def chunk_downloads(cache: Path) -> Downloads:
    """Give where disks are put together: others may read what lies there."""
    return Downloads(directory=cache / "chunks", mode=0o755)


@contextmanager
def assembled(
    name: str,
    index: Index,
    crowd: Crowd,
    downloads: Downloads,
    shelf: Shelf,
    watch: Watch = unwatched,
) -> Iterator[Assembled]:
    """Give a disk, once all its chunks are here and checked; see ``gather`` for what it raises."""

    def waiting(_: int) -> None:
        what = f"{name}: another process fetches it"
        watch(Pace(what=what, done_bytes=0, total_bytes=None, rate=None))

    with downloads.claim(f"index-{index.key}", waiting) as part, explained(part.directory):
        check_room(part.directory, index.content_bytes - _taken(part.directory / DISK))
        write_whole(part.directory / INDEX, render(index).encode())
        # The claim keeps what has this file; what is fetched lies in the others.
        part.file.write_bytes(b"chunks")
        with open_have(index, part.directory) as have:
            with shelf.seeds(name) as seeds:
                local = take_local(have, seeds)
            meter = Meter(name, index.content_bytes, watch)
            meter.begin(have.here_bytes, index.content_bytes)
            try:
                gathered = gather(have, crowd, meter)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    # It would keep others from finishing theirs.
                    part.clear()
                raise
        (part.directory / DISK).chmod(0o644)
        yield Assembled(disk=part.directory / DISK, local_bytes=local, gathered=gathered)


def _taken(file: Path) -> int:
    try:
        return file.stat().st_blocks * 512
    except FileNotFoundError:
        return 0
