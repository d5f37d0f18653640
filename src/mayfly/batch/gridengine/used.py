"""What a task's machine has used, told to the job's user when it has ended.

Grid Engine's own account of the job is of the starter. The host service knows of the machine.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from mayfly.batch.settings import BatchSettings
from mayfly.errors import MayflyError
from mayfly.host import client
from mayfly.units import show_size

_SIZES = (
    ("memory at most", "memory_peak_bytes"),
    ("disk", "disk_bytes"),
    ("read", "read_bytes"),
    ("written", "written_bytes"),
)


def ask_used(key: str, settings: BatchSettings) -> Sequence[Mapping[str, Any]]:
    """Give what the service wrote down of a task's machines, the latest first; never raises.

    A service of an earlier version writes nothing down.
    """
    with contextlib.suppress(MayflyError):
        _, job, part = key.split("/")
        with contextlib.closing(client.require(settings.socket)) as connection:
            _, events = client.call(connection, "usage", {"job": job})
        return [event for event in events if event.get("part") == part]
    return ()


def used_words(event: Mapping[str, Any]) -> str:
    """Say in a line what a machine has used; "" of an event that tells nothing."""
    words = []
    if _is_number(event.get("cpu_s")):
        words.append(f"{event['cpu_s']:.1f} s of CPU")
    words += [
        f"{name} {show_size(int(event[key]))}" for name, key in _SIZES if _is_number(event.get(key))
    ]
    steps = event.get("start_ms")
    started = [
        f"{step} {ms:.0f} ms"
        for step, ms in (steps.items() if isinstance(steps, Mapping) else ())
        if _is_number(ms)
    ]
    if started:
        words.append(f"start: {' '.join(started)}")
    return f"the machine used {', '.join(words)}" if words else ""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
