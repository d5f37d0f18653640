"""Bring a disk from outside into the catalogue.

The file may be hostile: ``formats`` refuses what would read other files, what is left is read by
qemu-img under limits, and the result is a qcow2 of our own making.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mayfly.errors import Failed, Invalid
from mayfly.images.catalogue import Catalogue, Draft, Existing
from mayfly.images.catalogue.record import Facts
from mayfly.images.convert import convert
from mayfly.images.follow import Report, failure, silent
from mayfly.images.formats import SECTOR, Disk, check_boot, recognise
from mayfly.images.hostile import (
    converter,
    guard,
    path_of,
    qemu_img,
    readable,
    writable,
)
from mayfly.images.outside import about, opened_file, sha512_of, unchanging
from mayfly.images.ova import disk_in, is_ova
from mayfly.images.room import check_room
from mayfly.model import Image
from mayfly.units import GIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What is known of a file before it is read."""

    os: str = "unknown"
    source: str = ""
    """Where it came from, in words; empty: the file."""
    version: str = ""
    sha512: str = ""
    """Of the file, where that was checked already."""
    derived: tuple[str, ...] = ()
    """What was done before, to have the file."""
    tags: tuple[str, ...] = ()


def import_image(
    file: Path,
    name: str,
    catalogue: Catalogue,
    *,
    os_name: str = "unknown",
    existing: Existing = Existing.REFUSE,
    report: Report = silent,
) -> Image:
    """Convert a disk file and admit it to the catalogue."""
    return import_file(file, name, catalogue, Origin(os=os_name), existing=existing, report=report)


def import_file(
    file: Path,
    name: str,
    catalogue: Catalogue,
    origin: Origin,
    *,
    existing: Existing = Existing.REFUSE,
    report: Report = silent,
) -> Image:
    """Convert a disk file of known origin and admit it to the catalogue."""
    with (
        about(file),
        opened_file(file) as source,
        catalogue.draft(
            name,
            work=f"import {file.name}",
            force=existing is Existing.REPLACE,
            keep=existing is Existing.KEEP,
        ) as draft,
    ):
        if not is_ova(source):
            _judge(source)
        report("check", None)
        with unchanging(source, draft.directory) as still:
            sha512 = origin.sha512 or sha512_of(still)
            with disk_in(still, draft.directory) as inner:
                disk = _judge(inner)
                _convert(inner, disk, draft, report=report)
        _judge_made(draft, disk)
        check_boot(_start(draft), disk.bytes)
        report("hash", None)
        facts = Facts(
            os=origin.os,
            source=origin.source or f"file {file.name} ({disk.format})",
            disk_bytes=disk.bytes,
            version=origin.version,
            endorsed_sha512=sha512,
            derived=(*origin.derived, f"{converter()}: {disk.format} to qcow2"),
            tags=origin.tags,
        )
        return draft.admit(facts)


def _judge(source: BinaryIO) -> Disk:
    return recognise(source, os.fstat(source.fileno()).st_size)


def _convert(source: BinaryIO, disk: Disk, draft: Draft, *, report: Report) -> None:
    path = path_of(source)
    if disk.format == "raw":
        source.seek(0)
        check_boot(source.read(2 * SECTOR), disk.bytes)
    else:
        _check(source, disk)
    needed = _measure(source, disk)
    check_room(draft.directory, needed)
    with writable(draft.disk) as target:
        try:
            convert(
                path,
                disk.format,
                Path(path_of(target)),
                report=report,
                guard=guard(needed + GIB),
                pass_fds=(source.fileno(), target.fileno()),
            )
        except Failed as error:
            raise _damaged(disk, error.message) from error


def _judge_made(draft: Draft, disk: Disk) -> None:
    """Refuse what no qemu-img would have made that did not come under the orders of the disk."""
    with draft.disk.open("rb") as file:
        made = _judge(file)
    if made != Disk(format="qcow2", bytes=disk.bytes):
        raise Invalid(f"it became a {made.format} of {made.bytes} bytes, not {disk.bytes}")


def _check(source: BinaryIO, disk: Disk) -> None:
    ended = qemu_img(["check", "-f", disk.format, path_of(source)], source)
    if ended.code not in (0, 3):  # 3: only space that is reserved but not used
        raise _damaged(disk, failure("qemu-img", ended).message)


def _measure(source: BinaryIO, disk: Disk) -> int:
    ended = qemu_img(["measure", "-f", disk.format, "-O", "qcow2", path_of(source)], source)
    if ended.code != 0:
        raise _damaged(disk, failure("qemu-img", ended).message)
    required = re.search(r"^required size: (\d{1,18})$", "\n".join(ended.lines), re.MULTILINE)
    if required is None:
        raise _damaged(disk, "qemu-img does not say how large it is")
    return int(required[1])


def _start(draft: Draft) -> bytes:
    """Read the first two sectors of the disk that was made."""
    path = draft.directory / "start"
    with readable(draft.disk) as made, writable(path) as target:
        files = [f"if={path_of(made)}", f"of={path_of(target)}"]
        ended = qemu_img(
            ["dd", "-f", "qcow2", "-O", "raw", "bs=512", "count=2", *files], made, target
        )
        if ended.code != 0:
            said = failure("qemu-img", ended).message
            raise Failed(f"cannot read back the disk that was made: {said}")
    data = path.read_bytes()
    path.unlink()
    return data


def _damaged(disk: Disk, said: str) -> Invalid:
    return Invalid(
        f"the {disk.format} is truncated or damaged: {said}",
        hint="fetch or copy the file again, and compare its checksum",
    )
