"""The floor of a hot start: what a bare script needs to use a machine that stands by.

``prepare PLAN`` starts, restores, renews and warms a machine, stops it, prints the pid of its QEMU
and leaves it. ``claim PLAN PID`` is what is timed as a whole process: let it go on, claim it, run
`true` in it, kill QEMU, remove its files. It checks nothing, isolates nothing, records nothing.
Run both as ``python3 -I -S hot_floor.py ...``; the plan is that of ``bench/floor.py``.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from typing import Any

HEADER = struct.Struct(">BBHI")
CAPABILITIES = [{"capability": name, "state": True} for name in ("x-ignore-shared", "events")]
PORTS = ("qmp", "control", "session")


def frame(message: dict[str, Any]) -> bytes:
    """Pack one message."""
    text = json.dumps(message).encode()
    return HEADER.pack(1, 0, 0, len(text)) + text


def sync() -> bytes:
    """Pack the start of a conversation."""
    return HEADER.pack(0, 0x4D, 0x5946, 16) + os.urandom(16)


def until(connection: socket.socket, word: bytes) -> None:
    """Read until a word came."""
    seen = b""
    while word not in seen:
        data = connection.recv(65536)
        if not data:
            sys.exit(f"floor: QEMU is gone, after {seen!r}")
        seen += data


def connect(name: str) -> socket.socket:
    """Connect to a socket."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(name)
    return connection


def claim(plan: dict[str, Any], pid: int) -> None:
    """Use a machine that stands by, and take it away."""
    qmp, control, session = map(connect, PORTS)
    qmp.sendall(b'{"execute":"qmp_capabilities"}\n{"execute":"cont"}\n')
    control.sendall(sync() + frame({**plan["claim"], "id": 9, "time_ns": time.time_ns()}))
    until(control, b'"ok","id":9')
    session.sendall(sync() + frame(plan["start"]))
    until(session, b'"exit","code":0')
    end = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    select.select([end], [], [])
    for name in (plan["disk"], *plan["sockets"]):
        os.unlink(name)


def prepare(plan: dict[str, Any]) -> int:
    """Have a machine stand by; gives the pid of its QEMU."""
    # Only here: what is timed shall not read it.
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    floor = importlib.import_module("floor")
    floor.copy(plan["empty"], plan["disk"])
    listeners = {name: floor.listen(name) for name in plan["sockets"]}
    pid: int = floor.spawn(plan, listeners)
    qmp, control, _ = map(connect, PORTS)
    floor.load(qmp, plan["state"])
    control.sendall(sync() + frame(floor.renew()) + frame({"type": "warm", "id": 2}))
    until(control, b'"ok","id":2')
    qmp.sendall(b'{"execute":"stop"}\n')
    until(qmp, b'"STOP"')
    return pid


if __name__ == "__main__":
    with open(sys.argv[2]) as file:
        plan = json.load(file)
    os.chdir(plan["work"])
    if sys.argv[1] == "claim":
        claim(plan, int(sys.argv[3]))
    else:
        print(prepare(plan))
