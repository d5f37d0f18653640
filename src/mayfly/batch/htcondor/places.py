"""Where root's program listens, and what it writes down: beside the host service's socket."""

from __future__ import annotations

from pathlib import Path

from mayfly.batch.settings import BatchSettings

SOCKET, RECORD = "htcondor.sock", "htcondor.json"


def place_of(settings: BatchSettings, name: str = SOCKET) -> Path:
    """Give where wrappers ask."""
    return settings.socket.parent / name
