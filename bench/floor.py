"""The floor: what a bare script needs to run `true` in a clone with the same QEMU.

It does what cannot be left out: spawn QEMU, load the state, resume, renew, start the command, read
its end, kill QEMU. It checks nothing, isolates nothing, records nothing. ``bench/engine.py`` writes
its plan (a JSON file) and times it as a whole process: ``python3 -I -S floor.py PLAN``.
"""

import array
import json
import os
import shutil
import signal
import socket
import struct
import sys
import time
import uuid

HEADER = struct.Struct(">BBHI")


def frame(message: dict[str, object]) -> bytes:
    """Pack one message."""
    text = json.dumps(message).encode()
    return HEADER.pack(3 if False else 1, 0, 0, len(text)) + text


def sync() -> bytes:
    """Pack the start of a conversation."""
    return HEADER.pack(0, 0x4D, 0x5946, 16) + os.urandom(16)


def until(connection: socket.socket, word: bytes) -> bytes:
    """Read until a word came."""
    seen = b""
    while word not in seen:
        data = connection.recv(65536)
        if not data:
            sys.exit("floor: QEMU is gone")
        seen += data
    return seen


def main(plan: dict[str, object]) -> float:
    """Run once; gives the seconds from spawn to the command's end."""
    work = str(plan["work"])
    began = time.monotonic()
    shutil.copyfile(str(plan["empty"]), f"{work}/disk.qcow2")
    names = ("qmp", "control", "session", "share")
    listeners = {}
    for name in names:
        listeners[name] = socket.socket(socket.AF_UNIX)
        listeners[name].bind(f"{work}/{name}")
        listeners[name].listen(1)
    files = {**plan["files"], **{f"{work}/disk.qcow2": plan["layer_fd"]}}  # type: ignore[dict-item]
    pid = os.fork()
    if pid == 0:
        high = {name: os.dup2(item.fileno(), 900 + at) for at, (name, item) in enumerate(listeners.items())}
        opened = []
        for path, number in files.items():
            flags = os.O_RDWR if number == plan["layer_fd"] or "/proc/" in path else os.O_RDONLY
            fd = os.open(path, flags)
            opened.append((os.dup2(fd, 950 + len(opened)), number))
        for fd, number in opened:
            os.dup2(fd, number)
        for name, fd in high.items():
            os.dup2(fd, plan["sockets"][name])  # type: ignore[index]
        argv = plan["argv"]
        os.execv(argv[0], argv)  # type: ignore[index, arg-type]
    links = {}
    for name in ("qmp", "control", "session"):
        links[name] = socket.socket(socket.AF_UNIX)
        links[name].connect(f"{work}/{name}")
        listeners[name].close()
    qmp = links["qmp"]
    until(qmp, b"\n")
    qmp.sendall(b'{"execute":"qmp_capabilities"}\n')
    capabilities = [{"capability": n, "state": True} for n in ("x-ignore-shared", "events")]
    command = {"execute": "migrate-set-capabilities", "arguments": {"capabilities": capabilities}}
    qmp.sendall(json.dumps(command).encode() + b"\n")
    state = os.open(str(plan["state"]), os.O_RDONLY)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [state]))]
    qmp.sendmsg([b'{"execute":"getfd","arguments":{"fdname":"state"}}\n'], rights)
    qmp.sendall(b'{"execute":"migrate-incoming","arguments":{"uri":"fd:state"}}\n')
    until(qmp, b'"completed"')
    qmp.sendall(b'{"execute":"cont"}\n')
    control, session = links["control"], links["session"]
    renew = {
        "type": "renew",
        "id": 1,
        "epoch": str(uuid.uuid4()),
        "boot_id": str(uuid.uuid4()),
        "machine_id": uuid.uuid4().hex,
        "hostname": "floor",
        "seed": os.urandom(64).hex(),
        "time_ns": time.time_ns(),
        "host_key": None,
    }
    claim = {**plan["claim"], "id": 2, "time_ns": time.time_ns()}  # type: ignore[dict-item]
    control.sendall(sync() + frame(renew) + frame(claim))
    until(control, b'"id":2')
    session.sendall(sync() + frame(plan["start"]))  # type: ignore[arg-type]
    until(session, b'"bye"')
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    for name in (*names, "disk.qcow2"):
        os.unlink(f"{work}/{name}")
    return time.monotonic() - began


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        print(main(json.load(file)))
