"""Processes that stand for QEMU with an agent in it: they answer what they are asked, at once."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import selectors
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mayfly.engine.control import Control
from mayfly.engine.linux import start_time
from mayfly.engine.machine import Machine, Order
from mayfly.engine.monitor import Monitor
from mayfly.engine.process import Process, connect_socket
from mayfly.engine.records import Place, Record
from mayfly.engine.template import Engine
from mayfly.errors import Failed
from mayfly.guest.framing import Kind, Parser, pack_message, pack_sync
from mayfly.model import Image, Shape, State

SOCKETS = ("qmp", "control", "session", "share")
LIFE_S = 120
"""Should a test forget one, it ends by itself."""
HELLO = {"type": "hello", "protocol": 1, "protocol_min": 1, "features": ["refresh"]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What a machine does otherwise than the good one."""

    start_fails: str = ""
    claim_fails: str = ""
    deaf: tuple[str, ...] = ()
    """QMP commands that are never answered."""
    events: tuple[tuple[str, dict[str, Any]], ...] = ()
    """After a QMP command of that name, an event."""
    console: str = "login: "
    gate: Path | None = None
    """It starts only when this file is there."""
    begun: Path | None = None
    """Where each start leaves a file."""
    heard: Path | None = None
    """Where each claim is written to, in a line."""


def _send(port: socket.socket, data: bytes) -> None:
    """Who asked may be gone."""
    with contextlib.suppress(OSError):
        port.sendall(data)


class _Qemu:
    """The body of the process."""

    def __init__(self, place: Path, script: Script) -> None:
        self._script = script
        self._selector = selectors.DefaultSelector()
        self._parser = Parser()
        self._status = "running"
        self._sessions = 0
        self._visits: list[str] = []
        # A socket's path is short, that of a test's directory need not be.
        short = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        for name in SOCKETS:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(f"/proc/self/fd/{short}/{name}")
            listener.listen(4)
            self._on(listener, functools.partial(self._accept, name, listener))

    def _on(self, port: socket.socket, call: Callable[[], None]) -> None:
        self._selector.register(port, selectors.EVENT_READ, call)

    def run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                key.data()

    def _accept(self, name: str, listener: socket.socket) -> None:
        port = listener.accept()[0]
        if name == "qmp":
            _send(port, b'{"QMP": {}}\n')
        self._parser = Parser() if name == "control" else self._parser
        self._sessions += name == "session"
        hear = {"qmp": self._command, "control": self._request}.get(name, self._nothing)
        self._on(port, lambda: self._hear(port, hear))

    def _hear(self, port: socket.socket, hear: Callable[[socket.socket, bytes], None]) -> None:
        data = b""
        with contextlib.suppress(OSError):
            # Descriptors that come along (a tap, a disk) are closed again.
            data, fds, _, _ = socket.recv_fds(port, 1 << 16, 8)
            for fd in fds:
                os.close(fd)
        if not data:
            self._selector.unregister(port)
            port.close()
            self._sessions -= hear == self._nothing
            return
        hear(port, data)

    def _command(self, port: socket.socket, data: bytes) -> None:
        for line in data.splitlines():
            asked = json.loads(line)
            name = asked["execute"]
            for after, event in self._script.events:
                if after == name:
                    _send(port, json.dumps(event).encode() + b"\n")
            if name in self._script.deaf:
                continue
            self._status = {"stop": "paused", "cont": "running"}.get(name, self._status)
            if name == "chardev-add":
                self._visits.append(asked["arguments"]["id"])
            value = self._value(name)
            _send(port, json.dumps({"return": value, "id": asked["id"]}).encode() + b"\n")

    def _value(self, command: str) -> object:
        if command == "query-chardev":
            # Those that were added are never left, as far as this one knows.
            session = "unix:" if self._sessions else "disconnected:unix:"
            added = [{"label": label, "filename": "unix:"} for label in self._visits]
            return [{"label": "session", "filename": session}, *added]
        known = {"ringbuf-read": self._script.console, "query-status": {"status": self._status}}
        return known.get(command, {})

    def _request(self, port: socket.socket, data: bytes) -> None:
        for frame in self._parser.feed(data):
            if frame.kind is Kind.SYNC:
                _send(port, pack_sync(frame.payload) + pack_message(HELLO))
                continue
            asked = frame.message
            answer = {"type": "ok", "id": asked["id"]}
            if asked["type"] == "claim" and self._script.heard is not None:
                with self._script.heard.open("a") as heard:
                    heard.write(json.dumps(asked) + "\n")
            if asked["type"] == "claim" and self._script.claim_fails:
                answer |= {"type": "error", "reason": self._script.claim_fails}
            _send(port, pack_message(answer))

    def _nothing(self, port: socket.socket, data: bytes) -> None:
        """Sessions and shares are the client's own business."""


def start_qemu(place: Path, script: Script | None = None) -> int:
    """Start one whose sockets are in this directory; gives its pid."""
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            signal.alarm(LIFE_S)
            for fd in map(int, os.listdir("/proc/self/fd")):
                if fd not in (0, 1, 2, tell):
                    with contextlib.suppress(OSError):
                        os.close(fd)
            qemu = _Qemu(place, script or Script())
            os.write(tell, b"1")
            os.close(tell)
            qemu.run()
        finally:
            os._exit(1)
    os.close(tell)
    with open(ready, "rb") as answer:
        assert answer.read() == b"1"
    return pid


def machine_in(place: Place, record: Record, script: Script | None = None) -> Machine:
    """Start one, and connect to it as ``start_machine`` does."""
    pid = start_qemu(place.path, script)
    written = replace(record, pid=pid, started=start_time(pid) or 0, state=State.STARTING)
    place.write(written)
    process = Process(
        pid=pid,
        handle=os.pidfd_open(pid),
        monitor=Monitor(connect_socket(place.path, "qmp")),
        place=place.path,
        output=os.open("/dev/null", os.O_RDONLY),
    )
    process.ready()
    control = Control(connect_socket(place.path, "control"), process.handle)
    control.begin()
    control.hello(timeout_s=10)
    return Machine(process, control, written, place)


Start = Callable[..., Machine]


def starter(script: Script) -> Start:
    """Give what takes the place of ``start_machine``."""

    def start(
        _: Engine,
        template: Shape,
        image: Image,
        order: Order,
        memory_fd: int,  # noqa: ARG001 - its maker calls it so
        *,
        held: tuple[str, Place],
    ) -> Machine:
        name, place = held
        if script.begun is not None:
            script.begun.mkdir(exist_ok=True)
            (script.begun / name).touch()
        while script.gate is not None and not script.gate.exists():
            select_nothing()
        if script.start_fails:
            place.remove()
            raise Failed(script.start_fails)
        record = Record(
            id=name,
            image=image.name,
            template="t",
            cpus=template.cpus,
            memory_mib=template.memory_mib,
            network=order.network,
            state=State.WANTED,
            command=order.command,
            created_at=0.0,
            image_sha512=image.sha512,
            endorsed_sha512=image.endorsed_sha512,
        )
        return machine_in(place, record, script)

    return start


def select_nothing() -> None:
    """Let a little time pass: a gate is a file, which nobody can wait for."""
    selectors.DefaultSelector().select(0.005)
