"""Wait until something can be read, whatever numbers the descriptors have."""

from __future__ import annotations

import select
from collections.abc import Iterable


def readable(fds: Iterable[int], timeout_s: float) -> list[int]:
    """Give the descriptors among ``fds`` that can be read, or have ended, within ``timeout_s``."""
    # Not select(2): a process that holds many machines has descriptors beyond its 1024.
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return [fd for fd, _ in poll.poll(max(0.0, timeout_s) * 1000)]
