"""QEMU's plain save and restore, by a bare script: what suspend and resume are measured against.

``save PLACE STATE PID`` stops a guest, writes its memory and devices to a file and kills its QEMU;
``restore PLACE STATE LINE`` starts the QEMU line in the file LINE (JSON), reads the state, lets the
guest go on, and prints the pid. Run as ``python3 -I -S plain_save.py ...``, each as one process.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import sys
import time

EVENTS = b'{"capabilities":[{"capability":"events","state":true}]}'
AT_ONCE = 1 << 40
"""Bytes per second: by itself QEMU holds back, for guests that run on meanwhile."""


def until(connection: socket.socket, word: bytes) -> None:
    """Read until a word came."""
    seen = b""
    while word not in seen:
        data = connection.recv(65536)
        if not data or b'"error"' in seen or b'"failed"' in seen:
            sys.exit(f"save: {seen!r}")
        seen += data


def ask(qmp: socket.socket, command: bytes, arguments: bytes, fd: int | None = None) -> None:
    """Send a command."""
    text = b'{"execute":"%s","arguments":%s}\n' % (command, arguments)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", fd))] if fd else []
    qmp.sendmsg([text], rights)


def connect(place: str) -> socket.socket:
    """Connect to the monitor, as soon as it listens."""
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(f"{place}/qmp")
        except OSError:
            connection.close()
            time.sleep(0.001)
        else:
            connection.sendall(b'{"execute":"qmp_capabilities"}\n')
            return connection


def save(place: str, state: str, pid: int) -> None:
    """Write a guest to a file."""
    qmp = connect(place)
    qmp.sendall(b'{"execute":"stop"}\n')
    ask(qmp, b"migrate-set-capabilities", EVENTS)
    ask(qmp, b"migrate-set-parameters", b'{"max-bandwidth":%d}' % AT_ONCE)
    fd = os.open(state, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    ask(qmp, b"getfd", b'{"fdname":"state"}', fd)
    ask(qmp, b"migrate", b'{"uri":"fd:state"}')
    until(qmp, b'"completed"')
    end = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    select.select([end], [], [])


def restore(place: str, state: str, argv: list[str]) -> int:
    """Read a guest from a file; gives the pid of its QEMU."""
    os.unlink(f"{place}/qmp")
    pid = os.posix_spawn(argv[0], argv, {"LC_ALL": "C", "PATH": "/usr/bin:/bin"}, setsid=True)
    qmp = connect(place)
    ask(qmp, b"migrate-set-capabilities", EVENTS)
    ask(qmp, b"getfd", b'{"fdname":"state"}', os.open(state, os.O_RDONLY))
    ask(qmp, b"migrate-incoming", b'{"uri":"fd:state"}')
    until(qmp, b'"completed"')
    qmp.sendall(b'{"execute":"cont"}\n')
    until(qmp, b'"RESUME"')
    return pid


if __name__ == "__main__":
    if sys.argv[1] == "save":
        save(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        with open(sys.argv[4]) as file:
            line = json.load(file)
        print(restore(sys.argv[2], sys.argv[3], line))
