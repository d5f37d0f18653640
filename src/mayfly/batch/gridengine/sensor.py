"""The load sensor: each host says whether it takes jobs in machines, and which images are hot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mayfly.batch.gridengine.verifier import HOT, READY
from mayfly.batch.status import ready_images

NO_IMAGE = "-"


def values_of(status: Mapping[str, Any] | None) -> dict[str, str]:
    """Give what a host says of itself; ``status``: the service's, None where there is none."""
    if status is None or status.get("draining") or status.get("trouble"):
        return {READY: "FALSE", HOT: NO_IMAGE}
    return {READY: "TRUE", HOT: "|".join(ready_images(status)) or NO_IMAGE}


def report(
    host: str, lines: Iterable[str], send: Callable[[str], None], look: Callable[[], dict[str, str]]
) -> None:
    """Answer each line that Grid Engine sends with a report, until it says ``quit``."""
    for line in lines:
        if line.strip() == "quit":
            return
        send("begin")
        for name, value in look().items():
            send(f"{host}:{name}:{value}")
        send("end")
