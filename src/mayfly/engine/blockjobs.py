"""Run a job inside QEMU (docs/interop/qmp: Background jobs) to its end."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from mayfly.engine.monitor import Monitor
from mayfly.errors import Failed, Quota

NO_ROOM = ("No space left on device", "Disk quota exceeded", "File too large")
"""How QEMU says that a file cannot grow, whatever it was doing."""


def qemu_job(
    monitor: Monitor, command: str, arguments: Mapping[str, Any], *, what: str, timeout_s: float
) -> None:
    """Start a job that waits to be dismissed, wait for its end, and dismiss it.

    Raises ``Failed`` with QEMU's words, ``Quota`` when there was no room, ``Unavailable`` when it
    takes longer (it goes on).
    """
    # A name of its own: what is heard of an earlier job must not pass for the end of this one.
    name = f"mayfly-{secrets.token_hex(4)}"
    monitor.call(command, {"job-id": name, **arguments})
    ended = {"status": "concluded", "id": ""}
    while ended["id"] != name:
        ended = monitor.wait_event(
            "JOB_STATUS_CHANGE", timeout_s=timeout_s, field="status", among=["concluded"]
        )
    jobs = monitor.call("query-jobs")
    error = next((job.get("error") for job in jobs if job.get("id") == name), None)
    monitor.call("job-dismiss", {"id": name})
    if error is not None:
        raise failure(f"QEMU could not {what}", str(error))


def failure(what: str, words: str) -> Failed | Quota:
    """Give the error for what QEMU said when something did not work."""
    if any(reason in words for reason in NO_ROOM):
        return Quota(f"{what}: {words}", hint="free some space on the disk of this host")
    return Failed(f"{what}: {words}")
