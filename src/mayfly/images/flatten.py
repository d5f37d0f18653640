"""Make one disk of the layers that a machine wrote on top of its image.

A guest had root, and QEMU was under its orders perhaps: the layers are copied, judged, and read by
a qemu-img with few rights, which is told what lies below each and asks no layer for that.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import BinaryIO

from mayfly.errors import Failed, Invalid
from mayfly.images.catalogue import Draft
from mayfly.images.convert import tell
from mayfly.images.follow import Report, follow
from mayfly.images.formats import layer_bytes
from mayfly.images.hostile import guard, path_of, readable, writable
from mayfly.images.room import check_room
from mayfly.model import Image
from mayfly.units import GIB

_TIMEOUT_S = 4 * 3600.0
_BLOCK = 512


def flatten(layers: Sequence[int], image: Image, draft: Draft, report: Report) -> None:
    """Write the draft's disk: ``layers`` are descriptors, the top one first, above ``image``.

    Raises ``Invalid`` when a layer is none, ``Quota`` when there is no room.
    """
    taken = sum(os.fstat(layer).st_blocks * _BLOCK for layer in layers)
    check_room(draft.directory, 2 * taken + image.size_bytes)
    report("copy", None)
    with ExitStack() as stack:
        files = []
        for index, layer in enumerate(layers):
            copy = draft.directory / f"layer-{index}"
            copy_sparse(layer, copy)
            files.append(stack.enter_context(readable(copy)))
            _judge(files[-1], index, image)
        base = stack.enter_context(image.disk.open("rb"))
        target = stack.enter_context(writable(draft.disk))
        report("flatten", None)
        argv = ["qemu-img", "convert", "-p", "--image-opts", "-O", "qcow2"]
        argv += ["-o", "compat=1.1,lazy_refcounts=off"]
        try:
            follow(
                [*argv, options_of([*files, base], image.format), path_of(target)],
                timeout_s=_TIMEOUT_S,
                on_line=partial(tell, report, "flatten"),
                pass_fds=tuple(file.fileno() for file in (*files, base, target)),
                guard=guard(image.disk_bytes + GIB),
            )
        except Failed as error:
            raise Invalid(f"the disk of the machine is damaged: {error.message}") from error
    for index in range(len(layers)):
        (draft.directory / f"layer-{index}").unlink()


def options_of(files: Sequence[BinaryIO], image_format: str) -> str:
    """Name a chain of files for qemu-img, top first, so that nothing in them is asked for it."""
    words = []
    for index, file in enumerate(files):
        before = "backing." * index
        kind = image_format if index == len(files) - 1 else "qcow2"
        words += [f"{before}driver={kind}", f"{before}file.driver=file"]
        words += [f"{before}file.filename={path_of(file)}", f"{before}file.locking=off"]
    return ",".join(words)


def _judge(file: BinaryIO, index: int, image: Image) -> None:
    found = layer_bytes(file)
    if found != image.disk_bytes:
        raise Invalid(
            f"layer {index} of the machine's disk has {found} bytes,"
            f" and its image {image.disk_bytes}"
        )


def copy_sparse(source: int, target: Path) -> None:
    """Copy a file by its descriptor; holes stay holes."""
    size = os.fstat(source).st_size
    with target.open("xb") as file:
        file.truncate(size)
        at = 0
        while at < size:
            try:
                at = os.lseek(source, at, os.SEEK_DATA)
            except OSError:
                return  # Nothing but a hole is left.
            end = os.lseek(source, at, os.SEEK_HOLE)
            while at < end:
                copied = os.copy_file_range(source, file.fileno(), end - at, at, at)
                if not copied:
                    return
                at += copied
