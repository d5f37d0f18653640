"""Who is connected to a machine's ports, as QEMU sees it, and how to hang up."""

from __future__ import annotations

import time
from pathlib import Path

from mayfly.engine.monitor import Monitor
from mayfly.engine.process import connect_socket
from mayfly.errors import Unavailable

NOBODY = "disconnected:"
"""How QEMU begins the name of a socket that it listens on."""
HANG_UP_S = 10.0


def is_connected(monitor: Monitor, port: str) -> bool:
    """Tell whether somebody is connected to a port of a machine."""
    found = monitor.call("query-chardev")
    return any(
        item.get("label") == port and not str(item.get("filename")).startswith(NOBODY)
        for item in found
    )


def hang_up(monitor: Monitor, port: str) -> bool:
    """Disconnect whoever is connected to a port; tells whether somebody was. QEMU listens again."""
    deadline = time.monotonic() + HANG_UP_S
    if not is_connected(monitor, port):
        return False
    monitor.call("yank", {"instances": [{"type": "chardev", "id": port}]})
    while is_connected(monitor, port):
        if time.monotonic() > deadline:
            raise Unavailable(f"QEMU did not disconnect the machine's {port} port in time")
        time.sleep(0.001)
    return True


def tell_of_hang_up(place: Path, port: str) -> None:
    """Let the guest know that nobody is connected to a port, after its CPUs stood still.

    QEMU looks at no port meanwhile. It does not find out afterwards that somebody is gone, but
    takes what the guest writes for delivered, or waits for ever. A short visit mends that.
    """
    connect_socket(place, port).close()
