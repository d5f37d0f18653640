"""Work that may block is done by a forked copy of the agent, which reports back when it ends."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Collection
from typing import NamedTuple, NoReturn

from mayfly.guest.job import Credentials, drop
from mayfly.guest.loop import Loop

REPORT_LIMIT = 32 << 10
"""A report must fit into a pipe: nobody reads it before the end."""


class Result(NamedTuple):
    """How an assistant ended: what ``work`` gave, or why it failed."""

    ok: bool
    report: bytes


def start(
    loop: Loop,
    work: Callable[[], bytes],
    done: Callable[[Result], None],
    *,
    files: Collection[int] = (),
    credentials: Credentials | None = None,
) -> int:
    """Fork; the child calls ``work()`` with only ``files`` open, ``done`` hears of its end."""
    report, reporter = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        pid = os.fork()
    except OSError:
        os.close(report)
        os.close(reporter)
        raise
    if pid == 0:
        _work(work, reporter, files=files, credentials=credentials)
    os.close(reporter)

    def ended(status: int) -> None:
        told = b""
        with contextlib.suppress(BlockingIOError):
            told = os.read(report, REPORT_LIMIT)
        os.close(report)
        ok = status == 0
        done(Result(ok, told or (b"" if ok else b"ended with wait status %d" % status)))

    loop.adopt(pid, ended)
    return pid


def _work(
    work: Callable[[], bytes],
    reporter: int,
    *,
    files: Collection[int],
    credentials: Credentials | None,
) -> NoReturn:
    code = 70
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        # A copy of the job's pipes or of a port in here would keep their other ends waiting.
        _close_all_but({0, 1, 2, reporter, *files})
        if credentials is not None:
            drop(credentials)
        os.write(reporter, work()[:REPORT_LIMIT])
        code = 0
    except (OSError, ValueError, MemoryError) as error:
        code = 1
        os.write(reporter, _reason(error)[:REPORT_LIMIT])
    finally:
        # Whatever happened, this copy of the agent must not go on.
        os._exit(code)


def _close_all_but(keep: Collection[int]) -> None:
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd not in keep:
            # The listing's own descriptor is among them, and closed by now.
            with contextlib.suppress(OSError):
                os.close(fd)


def _reason(error: BaseException) -> bytes:
    if isinstance(error, OSError) and error.strerror:
        name = error.filename
        where = os.fsencode(name) + b": " if isinstance(name, str | bytes) else b""
        return where + error.strerror.encode()
    return str(error).encode("utf-8", "surrogateescape") or type(error).__name__.encode()
