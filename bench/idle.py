"""Open idle connections to a host service, as one user, and see what becomes of them.

Run as ``python3 -I -S idle.py SOCKET COUNT SECONDS``; prints how many were taken, how many refused,
and after how many seconds the last one was closed (null: not within SECONDS).
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time

SETTLE_S = 1.0
"""For a refusal to arrive."""


def main(path: str, count: int, seconds: float) -> dict[str, float | int | None]:
    """Open them, and wait for their ends."""
    began = time.monotonic()
    there = [_connected(path) for _ in range(count)]
    _closed(there, began + SETTLE_S, everybody=False)
    taken = len(there)
    # From here on somebody may look at what the service does meanwhile.
    print(json.dumps({"taken": taken}), flush=True)
    _closed(there, began + seconds, everybody=True)
    after = None if there else round(time.monotonic() - began, 1)
    return {"taken": taken, "refused": count - taken, "closed_after_s": after}


def _connected(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(path)
    return connection


def _closed(there: list[socket.socket], until: float, *, everybody: bool) -> None:
    """Take out those that the service closes; to the end of the time, or of them all."""
    while there or not everybody:
        left = until - time.monotonic()
        if left <= 0:
            return
        for connection in select.select(there, [], [], left)[0]:
            if not connection.recv(65536):
                there.remove(connection)
                connection.close()


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))))
