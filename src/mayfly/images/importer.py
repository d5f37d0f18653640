"""Bring a disk from outside into the catalogue.

The file may be hostile: ``formats`` refuses what would read other files, what is left is read by
qemu-img under limits, and the result is a qcow2 of our own making.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from mayfly.command import Finished, run
from mayfly.errors import Failed, Invalid, Missing, Quota
from mayfly.images.catalogue import Catalogue, Draft
from mayfly.images.convert import convert
from mayfly.images.follow import Report, follow, silent
from mayfly.images.formats import SECTOR, Disk, check_boot, recognise
from mayfly.images.record import Facts
from mayfly.images.room import check_room
from mayfly.model import Image
from mayfly.units import GIB

_TIMEOUT_S = 1800.0
_ADDRESS_SPACE = 4 * GIB
_CPU_S = 4 * 3600


def import_image(
    file: Path,
    name: str,
    catalogue: Catalogue,
    *,
    os_name: str = "unknown",
    force: bool = False,
    report: Report = silent,
) -> Image:
    """Convert a disk file and admit it to the catalogue."""
    with (
        _about(file),
        _opened(file) as source,
        catalogue.draft(name, work=f"import {file.name}", force=force) as draft,
    ):
        _judge(source)
        report("check", None)
        with _unchanging(source, draft) as still:
            disk = _judge(still)
            _convert(still, disk, draft, report=report)
        check_boot(_start(draft), disk.bytes)
        report("hash", None)
        facts = Facts(os=os_name, source=f"file {file.name} ({disk.format})", disk_bytes=disk.bytes)
        return draft.admit(facts)


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    try:
        # Not blocking: a FIFO of that name would else hold us for ever.
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise Missing(f"there is no file {file}") from error
    except OSError as error:
        raise Invalid(f"it cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Invalid("it is not a file")
    with open(descriptor, "rb") as source:
        yield source


@contextmanager
def _about(file: Path) -> Iterator[None]:
    """Say in every refusal which file it is about."""
    try:
        yield
    except (Invalid, Quota) as error:
        raise type(error)(f"cannot import {file}: {error.message}", hint=error.hint) from error


def _judge(source: BinaryIO) -> Disk:
    return recognise(source, os.fstat(source.fileno()).st_size)


def _path(source: BinaryIO) -> str:
    """Give a name for the file that was opened, whatever its own name leads to by now."""
    return f"/proc/{os.getpid()}/fd/{source.fileno()}"


@contextmanager
def _unchanging(source: BinaryIO, draft: Draft) -> Iterator[BinaryIO]:
    """Give the file, or a copy of it when somebody else could change it after it was judged."""
    found = os.fstat(source.fileno())
    if found.st_uid in (0, os.geteuid()) and not found.st_mode & 0o022:
        yield source
        return
    check_room(draft.directory, found.st_blocks * SECTOR)
    copy = draft.directory / "copy"
    argv = ["cp", "--sparse=always", "--reflink=auto", _path(source), str(copy)]
    follow(argv, timeout_s=_TIMEOUT_S)
    with copy.open("rb") as target:
        yield target
    copy.unlink()


def _convert(source: BinaryIO, disk: Disk, draft: Draft, *, report: Report) -> None:
    path = _path(source)
    if disk.format == "raw":
        source.seek(0)
        check_boot(source.read(2 * SECTOR), disk.bytes)
    else:
        _check(path, disk)
    needed = _measure(path, disk)
    check_room(draft.directory, needed)
    try:
        convert(path, disk.format, draft.disk, report=report, limits=_limits(needed + GIB))
    except Failed as error:
        raise _damaged(disk, error.message) from error


def _check(path: str, disk: Disk) -> None:
    done = _qemu_img(["check", "-f", disk.format, path])
    if done.code not in (0, 3):  # 3: only space that is reserved but not used
        raise _damaged(disk, done.complaint())


def _measure(path: str, disk: Disk) -> int:
    done = _qemu_img(["measure", "--output=json", "-f", disk.format, "-O", "qcow2", path])
    if done.code != 0:
        raise _damaged(disk, done.complaint())
    answer: dict[str, Any] = json.loads(done.stdout)
    return int(answer["required"])


def _start(draft: Draft) -> bytes:
    """Read the first two sectors of the disk that was made."""
    target = draft.directory / "start"
    count = ["bs=512", "count=2", f"if={draft.disk}", f"of={target}"]
    _qemu_img(["dd", "-f", "qcow2", "-O", "raw", *count])
    data = target.read_bytes()
    target.unlink()
    return data


def _qemu_img(arguments: list[str]) -> Finished:
    argv = ["prlimit", *_limits(GIB), "qemu-img", *arguments]
    return run(argv, timeout_s=_TIMEOUT_S, check=False)


def _limits(file_bytes: int) -> tuple[str, ...]:
    return (
        f"--as={_ADDRESS_SPACE}",
        f"--cpu={_CPU_S}",
        f"--fsize={file_bytes}",
        "--core=0",
    )


def _damaged(disk: Disk, said: str) -> Invalid:
    return Invalid(
        f"the {disk.format} is truncated or damaged: {said}",
        hint="fetch or copy the file again, and compare its checksum",
    )
