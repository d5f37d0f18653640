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
from dataclasses import dataclass, field
from pathlib import Path

POLL_S = 0.005
"""How often whoever comes next looks for a place."""
LINE_S = 0.05
"""How often the others look whether they come next: many that look often are work, too."""
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
    with contextlib.ExitStack() as held:
        _wait(directory, places or starts_at_once(), held, patience_s, waiting)
        yield


def _wait(
    directory: Path,
    places: int,
    held: contextlib.ExitStack,
    patience_s: float,
    waiting: Callable[[], None],
) -> None:
    """Stand in line, then wait for a place; a full disk, say, does away with both."""
    clock = _Clock(patience_s=patience_s, waiting=waiting)
    with contextlib.suppress(OSError), contextlib.ExitStack() as line:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        first = _opened(directory / "line", line)
        while not _is_taken(first):
            if not clock.goes_on(LINE_S):
                return
        files = [_opened(directory / str(number), held) for number in range(places)]
        while not any(_is_taken(file) for file in files):
            if not clock.goes_on(POLL_S):
                return


@dataclass(slots=True, kw_only=True)
class _Clock:
    patience_s: float
    waiting: Callable[[], None]
    began: float = field(default_factory=time.monotonic)
    told: bool = False

    def goes_on(self, seconds: float) -> bool:
        """Let some time pass; false when there was enough of it."""
        waited_s = time.monotonic() - self.began
        if waited_s >= TELL_S and not self.told:
            self.waiting()
            self.told = True
        if waited_s >= self.patience_s:
            return False
        time.sleep(seconds)
        return True


def _opened(file: Path, stack: contextlib.ExitStack) -> int:
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    stack.callback(os.close, descriptor)
    # Whatever was forked meanwhile shares the lock: it is let go, not only closed.
    stack.callback(fcntl.flock, descriptor, fcntl.LOCK_UN)
    return descriptor


def _is_taken(descriptor: int) -> bool:
    """Take the lock, unless another has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
