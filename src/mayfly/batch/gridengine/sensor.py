"""The load sensor: each host says whether it takes jobs in machines, and which images are hot."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mayfly.batch.gridengine.verifier import HOT, READY
from mayfly.batch.settings import BatchSettings
from mayfly.errors import MayflyError
from mayfly.host import client

NO_IMAGE = "-"
ASK_LIMIT_S = 10.0


def values_of(status: Mapping[str, Any] | None) -> dict[str, str]:
    """Give what a host says of itself; ``status``: the service's, None where there is none."""
    if status is None or status.get("draining") or status.get("trouble"):
        return {READY: "FALSE", HOT: NO_IMAGE}
    standby = status.get("standby", [])
    ready = sorted({str(each["image"]) for each in standby if each.get("ready")})
    return {READY: "TRUE", HOT: "|".join(ready) or NO_IMAGE}


def ask_status(settings: BatchSettings) -> Mapping[str, Any] | None:
    """Give how the host service is, None when it does not say or nothing is to have machines."""
    if not settings.enabled:
        return None
    try:
        with contextlib.closing(client.require(settings.socket)) as connection:
            connection.ask("status")
            return connection.answer(limit_s=ASK_LIMIT_S)[0]
    except MayflyError:
        return None


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
