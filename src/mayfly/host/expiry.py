"""Ends machines whose time is over, when it is over."""

from __future__ import annotations

import time

from mayfly.host.state import Service
from mayfly.host.watching import end

LOOK_S = 60.0
"""How often to look at least: somebody may set the clock."""
LEAST_S = 0.05


def end_expired(service: Service) -> None:
    """End what is over by now, and look again when the next one is."""
    now = time.time()
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
