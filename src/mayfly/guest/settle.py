"""Waits until the machine has finished booting and its CPUs have calmed down."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mayfly.guest.files import beneath, read_text
from mayfly.guest.system import Tool

QUIET_S = 0.5
QUIET_SHARE = 0.9
LOOK_S = 1.0
NO_INIT = "/run/mayfly-init"
"""There where the host's own first process runs instead of an init system: nothing is to come."""
BOOTED = frozenset({"running", "degraded", "maintenance", "stopping"})
LOGINS = frozenset({"getty", "agetty", "mingetty", "login", "sulogin"})
BOOT_SCRIPTS = frozenset({"rc", "rcS", "startpar", "openrc"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """How time passes; tests have their own."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def settle(
    timeout_s: float, tool: Tool, *, root: str = "/", clock: Clock | None = None
) -> dict[str, Any]:
    """Wait for the end of the boot, of cloud-init, and for idle CPUs, ``timeout_s`` in all."""
    clock = clock or Clock()
    start = clock.now()
    deadline = start + timeout_s
    detail = "settled"
    for wait in (_boot, _cloud_init, _quiet):
        late = wait(deadline, tool, root, clock)
        if late:
            detail = late
            break
    return {
        "settled": detail == "settled",
        "waited_s": round(clock.now() - start, 3),
        "detail": detail,
    }


def _boot(deadline: float, tool: Tool, root: str, clock: Clock) -> str:
    if os.path.isdir(beneath(root, "/run/systemd/system")):
        return _systemd(deadline, tool, clock)
    if os.path.isdir(beneath(root, NO_INIT)):
        return ""
    while not _has_login(root):
        if not _nap(deadline, clock):
            return "no login prompt yet"
    return ""


def _nap(deadline: float, clock: Clock) -> bool:
    """Wait before looking again; false when it is too late."""
    left = deadline - clock.now()
    if left > 0:
        clock.sleep(min(LOOK_S, left))
    return left > 0


def _systemd(deadline: float, tool: Tool, clock: Clock) -> str:
    for attempt in itertools.count():
        left = deadline - clock.now()
        if left <= 0:
            break
        # By turns: old ones do not know --wait, and before the bus is there it cannot wait.
        wait = [] if attempt % 2 else ["--wait"]
        _, told = tool(["systemctl", "is-system-running", *wait], timeout_s=left)
        if told.decode("ascii", "replace").strip() in BOOTED:
            return ""
        _nap(deadline, clock)
    return "systemd is still starting"


def _has_login(root: str) -> bool:
    names = _process_names(root)
    return not names & BOOT_SCRIPTS and bool(names & LOGINS)


def _process_names(root: str) -> set[str]:
    folder = beneath(root, "/proc")
    return {
        read_text(f"{folder}/{name}/comm").strip() for name in os.listdir(folder) if name.isdigit()
    }


def _cloud_init(deadline: float, tool: Tool, root: str, clock: Clock) -> str:
    del tool
    if not os.path.exists(beneath(root, "/run/cloud-init/enabled")):
        return ""
    while not os.path.exists(beneath(root, "/run/cloud-init/result.json")):
        if not _nap(deadline, clock):
            return "cloud-init has not finished"
    return ""


def _quiet(deadline: float, tool: Tool, root: str, clock: Clock) -> str:
    del tool
    before = cpu_ticks(read_text(beneath(root, "/proc/stat")))
    while True:
        clock.sleep(QUIET_S)
        after = cpu_ticks(read_text(beneath(root, "/proc/stat")))
        idle, total = after[0] - before[0], after[1] - before[1]
        if total and idle > QUIET_SHARE * total:
            return ""
        if clock.now() >= deadline:
            return f"CPUs are busy: {100 - 100 * idle // max(total, 1)} %"
        before = after


def cpu_ticks(stat: str) -> tuple[int, int]:
    """Read /proc/stat: ticks that all CPUs were idle, and all ticks."""
    for line in stat.splitlines():
        name, *ticks = line.split()
        if name == "cpu":
            # What guests of the guest used is counted twice.
            counts = [int(tick) for tick in ticks[:8]]
            return sum(counts[3:5]), sum(counts)
    return 0, 0
