"""The floor: what a bare script needs to run `true` in a clone with the same QEMU.

It does what cannot be left out: copy the empty layer, listen, start QEMU, load the state, resume,
renew and claim, run the command, kill QEMU, remove its files. It checks nothing, isolates nothing
and records nothing. ``bench/floor_plan.py`` writes its plan, ``bench/start.py`` times it as a whole
process: ``python3 -I -S floor.py PLAN``. A plan without a state is a cold boot to the same point.
It prints the time at the end of each step.
"""

from __future__ import annotations

import json
import os
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


def copy(source: str, target: str) -> None:
    """Copy a file."""
    with open(source, "rb") as old, open(target, "wb") as new:
        new.write(old.read())


def listen(name: str) -> socket.socket:
    """Make a listening socket."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(name)
    listener.listen(1)
    return listener


def connect(name: str) -> socket.socket:
    """Connect to a socket."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(name)
    return connection


def spawn(plan: dict[str, Any], listeners: dict[str, socket.socket]) -> int:
    """Start QEMU with its files and sockets at the numbers that its arguments name."""
    pid = os.fork()
    if pid == 0:
        for number, path, flags in plan["files"]:
            os.dup2(os.open(path, flags), number)
        for name, listener in listeners.items():
            os.dup2(listener.fileno(), plan["sockets"][name])
        os.execv(plan["argv"][0], plan["argv"])
    for listener in listeners.values():
        listener.close()
    return pid


def load(qmp: socket.socket, state: str) -> None:
    """Load the state of the template's devices, and resume."""
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", os.open(state, os.O_RDONLY)))
    arguments = json.dumps({"capabilities": CAPABILITIES})
    words = '{"execute":"migrate-set-capabilities","arguments":%s}\n' % arguments  # noqa: UP031
    qmp.sendall(b'{"execute":"qmp_capabilities"}\n' + words.encode())
    qmp.sendmsg([b'{"execute":"getfd","arguments":{"fdname":"state"}}\n'], [rights])
    qmp.sendall(b'{"execute":"migrate-incoming","arguments":{"uri":"fd:state"}}\n')
    until(qmp, b'"completed"')
    qmp.sendall(b'{"execute":"cont"}\n')


def renew() -> dict[str, Any]:
    """Make an identity of its own."""
    names = {name: os.urandom(16).hex() for name in ("epoch", "boot_id", "machine_id")}
    for name in ("epoch", "boot_id"):
        word = names[name]
        names[name] = "-".join((word[:8], word[8:12], word[12:16], word[16:20], word[20:]))
    return {
        "type": "renew",
        "id": 1,
        "hostname": f"floor-{os.getpid()}",
        "host_key": None,
        **names,
        "seed": os.urandom(64).hex(),
        "time_ns": time.time_ns(),
    }


def main(plan: dict[str, Any]) -> list[tuple[str, float]]:
    """Run once; gives the name of each step and when it ended."""
    os.chdir(plan["work"])
    marks = [("begin", time.monotonic())]
    copy(plan["empty"], plan["disk"])
    pid = spawn(plan, {name: listen(name) for name in plan["sockets"]})
    qmp, control, session = map(connect, PORTS)
    marks.append(("spawn", time.monotonic()))
    if plan["state"]:
        load(qmp, plan["state"])
        marks.append(("load", time.monotonic()))
        control.sendall(sync())
    else:
        control.sendall(sync())
        until(control, b'"hello"')
        marks.append(("boot", time.monotonic()))
    claim = frame({**plan["claim"], "id": 2, "time_ns": time.time_ns()})
    control.sendall(frame(renew()) + claim)
    until(control, b'"ok","id":2')
    marks.append(("renew and claim", time.monotonic()))
    session.sendall(sync() + frame(plan["start"]))
    until(session, b'"exit","code":0')
    marks.append(("job", time.monotonic()))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    for name in (plan["disk"], *plan["sockets"]):
        os.unlink(name)
    return [*marks, ("end", time.monotonic())]


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        print(json.dumps(main(json.load(file))))
