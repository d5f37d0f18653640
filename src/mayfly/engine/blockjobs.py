"""Run a job inside QEMU (docs/interop/qmp: Background jobs) to its end."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from mayfly.engine.monitor import Monitor
from mayfly.errors import Failed, Quota

JOB = "mayfly"
NO_ROOM = ("No space left on device", "Disk quota exceeded", "File too large")
"""How QEMU says that a file cannot grow, whatever it was doing."""


def qemu_job(
    monitor: Monitor, command: str, arguments: Mapping[str, Any], *, what: str, timeout_s: float
) -> None:
    """Start a job and wait for its end.

    Raises ``Failed`` with QEMU's words, ``Quota`` when there was no room, ``Unavailable`` when it
    takes longer (it goes on).
    """
    monitor.call(command, {"job-id": JOB, **arguments})
    while True:
        event = monitor.wait_event(
            "JOB_STATUS_CHANGE", timeout_s=timeout_s, field="status", among=("concluded", "null")
        )
        if event.get("id") == JOB:
            break
    jobs = monitor.call("query-jobs")
    error = next((job.get("error") for job in jobs if job.get("id") == JOB), None)
    with contextlib.suppress(Failed):
        # Some dismiss themselves.
        monitor.call("job-dismiss", {"id": JOB})
    if error is not None:
        raise failure(f"QEMU could not {what}", str(error))


def failure(what: str, words: str) -> Failed | Quota:
    """Give the error for what QEMU said when something did not work."""
    if any(reason in words for reason in NO_ROOM):
        return Quota(f"{what}: {words}", hint="free some space on the disk of this host")
    return Failed(f"{what}: {words}")
