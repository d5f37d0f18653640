"""Open a container image in a SIF: its root file system is copied out and read by sqfs2tar."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mayfly.errors import Missing
from mayfly.images.container import sif
from mayfly.images.container.contents import Contents
from mayfly.images.container.packed import Part
from mayfly.images.outside import opened_file, sha512_of, unchanging
from mayfly.images.room import check_room

_PIECE = 1 << 24


@contextmanager
def opened_sif(file: Path, work: Path) -> Iterator[Contents]:
    """Open it; ``work`` is a private directory."""
    if shutil.which("sqfs2tar") is None:
        raise Missing(f"cannot read {file}: there is no sqfs2tar", hint="install squashfs-tools-ng")
    with opened_file(file) as given, unchanging(given, work) as still:
        fd, size = still.fileno(), os.fstat(still.fileno()).st_size
        offset, total = sif.find_table(os.pread(fd, sif.HEADER_BYTES, 0), size)
        table = os.pread(fd, sif.table_bytes(total), offset)
        partition = sif.find_partition(table, size)
        sha512 = sha512_of(still)
        path = work / "partition.squashfs"
        check_room(work, partition.size)
        with path.open("x+b") as copy:
            _copy(fd, partition, copy.fileno())
            # Open to the confined process, in a directory that is ours alone.
            os.fchmod(copy.fileno(), 0o444)
            part = Part(fd=copy.fileno(), offset=0, size=partition.size, squashfs=True)
            yield Contents(
                layers=(part,),
                config=None,
                source=f"SIF {file.name}",
                endorsed_sha512=sha512,
            )
        path.unlink()


def _copy(source: int, partition: sif.Partition, target: int) -> None:
    at, end = partition.offset, partition.offset + partition.size
    while data := os.pread(source, min(_PIECE, end - at), at):
        at += len(data)
        while data:
            data = data[os.write(target, data) :]
