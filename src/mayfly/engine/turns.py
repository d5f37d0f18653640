"""Take turns in starting machines: many that start side by side only keep each other waiting.

A turn is a lock on one of a few files, so that it ends with its process, however that ends. It is
a courtesy and no right: whoever has waited for long goes on without one, since what holds the turns
may be stopped, or of another's making.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

POLL_S = 0.01
PATIENCE_S = 60.0
TELL_S = 2.0


def starts_at_once() -> int:
    """Give how many machines are made side by side: what they do is work for a processor."""
    return 2 * len(os.sched_getaffinity(0)) + 2


@contextmanager
def turn(
    directory: Path,
    *,
    places: int | None = None,
    patience_s: float = PATIENCE_S,
    waiting: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Have one of ``places`` turns of this user; ``waiting`` is called when that takes long."""
    files = [directory / str(number) for number in range(places or starts_at_once())]
    descriptor = _wait(files, patience_s, waiting)
    try:
        yield
    finally:
        if descriptor is not None:
            # Whatever was forked meanwhile shares the lock: it is let go, not only closed.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)


def _wait(files: list[Path], patience_s: float, waiting: Callable[[], None]) -> int | None:
    began, told = time.monotonic(), False
    while True:
        try:
            descriptor = _take(files)
        except OSError:
            return None  # a full disk, say: what needs the disk will say so
        waited_s = time.monotonic() - began
        if descriptor is not None or waited_s >= patience_s:
            return descriptor
        if waited_s >= TELL_S and not told:
            waiting()
            told = True
        time.sleep(POLL_S)


def _take(files: list[Path]) -> int | None:
    files[0].parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file in files:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        os.close(descriptor)
    return None
