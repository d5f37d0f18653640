"""Run qemu-img on a disk that may be hostile: with limits, and without root's rights.

A fault in qemu-img's readers must not give a disk's author this host. So it gets descriptors of
the files that it needs, as /proc/self/fd/N, and may open nothing else that is not open to all.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mayfly.errors import Untrusted
from mayfly.images.follow import Ended, attend
from mayfly.units import GIB

NOBODY = 65534
TIMEOUT_S = 1800.0
_ADDRESS_SPACE = 4 * GIB
_CPU_S = 4 * 3600
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def guard(file_bytes: int) -> tuple[str, ...]:
    """Give the command that runs another one with limits; ``file_bytes`` is the most it writes."""
    return (
        "prlimit",
        *(f"--as={_ADDRESS_SPACE}", f"--cpu={_CPU_S}", f"--fsize={file_bytes}", "--core=0"),
        *_without_rights(),
        # Root's environment may hold secrets.
        *("env", "-i", f"PATH={os.environ.get('PATH', _PATH)}", "LC_ALL=C.UTF-8"),
    )


def _without_rights() -> tuple[str, ...]:
    if os.geteuid() != 0:
        return ()
    return (
        "setpriv",
        *("--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "--no-new-privs"),
        *("--inh-caps=-all", "--bounding-set=-all"),
    )


def qemu_img(arguments: list[str], *files: BinaryIO) -> Ended:
    """Run qemu-img, which inherits these files."""
    descriptors = tuple(file.fileno() for file in files)
    argv = ["qemu-img", *arguments]
    return attend(argv, timeout_s=TIMEOUT_S, pass_fds=descriptors, guard=guard(GIB))


def converter() -> str:
    """Name the program and its version, for the record of what was made of what."""
    words = " ".join(qemu_img(["--version"]).lines[:1]).split()
    return f"qemu-img {words[2]}" if len(words) > 2 else "qemu-img"


def path_of(file: BinaryIO) -> str:
    """Give the name of a file for a process that inherits it; /proc opens it by its mode again."""
    return f"/proc/self/fd/{file.fileno()}"


def is_readable(file: BinaryIO) -> bool:
    """Tell whether a process of ``guard`` can open this file, as it belongs to somebody else."""
    return os.geteuid() != 0 or bool(os.fstat(file.fileno()).st_mode & 0o004)


@contextmanager
def readable(path: Path) -> Iterator[BinaryIO]:
    """Open a file in a private directory so that a process of ``guard`` can read it, no more."""
    with path.open("rb") as file:
        os.fchmod(file.fileno(), 0o444)
        yield file


@contextmanager
def writable(path: Path) -> Iterator[BinaryIO]:
    """Make a file that a process of ``guard`` may write, and take it back at the end."""
    with path.open("x+b") as file:
        os.fchmod(file.fileno(), 0o600)
        if os.geteuid() == 0:
            os.fchown(file.fileno(), NOBODY, NOBODY)
        yield file
        if os.geteuid() == 0:
            os.fchown(file.fileno(), 0, 0)
    _check_released(path)


def _check_released(path: Path) -> None:
    """Refuse a file that is still open for writing: what was a qemu-img is under a disk's orders.

    The kernel grants a lease for reading only on a file that nobody can write to.
    """
    with path.open("rb") as file:
        try:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                raise Untrusted(f"a process that read the disk still writes to {path}") from error
            # A file system without leases, such as NFS: there is no telling.
