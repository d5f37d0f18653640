"""Ends machines whose time is over, when it is over; a clock that is set moves their ends along."""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import replace

from mayfly.errors import MayflyError
from mayfly.host.state import Service
from mayfly.host.watching import end

LOOK_S = 60.0
"""How often to look at least: somebody may set the clock."""
LEAST_S = 0.05
JUMP_S = 2.0
"""By how much the clock must differ from the time that has passed to have been set."""

log = logging.getLogger("mayfly.host")


def end_expired(service: Service) -> None:
    """End what is over by now, and look again when the next one is."""
    now = time.time()
    _follow_clock(service, now - time.clock_gettime(time.CLOCK_BOOTTIME))
    times = []
    for hosted in service.table:
        expires_at = hosted.record.expires_at
        if expires_at is None or hosted.doomed:
            continue
        if now >= expires_at:
            end(service, hosted, "its time is over")
        else:
            times.append(expires_at)
    if service.expiry is not None:
        service.expiry.cancel()
    wait_s = max(LEAST_S, min([LOOK_S, *(at - now for at in times)]))
    service.expiry = service.loop.later(wait_s, lambda: end_expired(service))


def _follow_clock(service: Service, booted_at: float) -> None:
    """Move the ends of all machines when the clock was set; ``booted_at``: by that clock."""
    before, service.booted_at = service.booted_at, booted_at
    if before is None or abs(booted_at - before) < JUMP_S:
        return
    log.warning("the clock was set by %+.0f s: the ends of machines move along", booted_at - before)
    for hosted in service.table:
        expires_at = hosted.record.expires_at
        if expires_at is None:
            continue
        hosted.record = replace(hosted.record, expires_at=expires_at + booted_at - before)
        # What is being done to a machine ends with writing its record.
        if not hosted.busy:
            with contextlib.suppress(MayflyError):
                hosted.write(hosted.record)
