"""Several rows of processes side by side, each row one after the other, in one thread."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterator, Sequence

from bench.client import BenchError, Child

LIMIT_S = 300.0

Lane = Iterator[Child]
"""Gives a process, and when that has ended is asked for the next; it looks at the end itself."""


def run_lanes(
    lanes: Sequence[Lane],
    *,
    every_s: float | None = None,
    meanwhile: Callable[[], None] = lambda: None,
) -> None:
    """Run lanes to their ends; ``meanwhile`` is called every so often.

    A process's end is noted when it happens: its time is exact however many there are.
    """
    running: dict[int, tuple[Lane, Child]] = {}
    quiet_since = time.monotonic()
    try:
        for lane in lanes:
            _next(lane, running)
        while running:
            ready = select.select(list(running), [], [], LIMIT_S if every_s is None else every_s)[0]
            now = time.monotonic()
            if ready:
                quiet_since = now
            elif now - quiet_since >= LIMIT_S:
                raise BenchError(f"nothing ended within {LIMIT_S:g} s")
            for handle in ready:
                running[handle][1].ended = now
            meanwhile()
            for handle in ready:
                lane, _ = running.pop(handle)
                os.close(handle)
                _next(lane, running)
    finally:
        for handle in running:
            os.close(handle)


def _next(lane: Lane, running: dict[int, tuple[Lane, Child]]) -> None:
    child = next(lane, None)
    if child is not None:
        running[os.pidfd_open(child.process.pid)] = (lane, child)
