"""A control port whose other end is a test: a guest that may say anything or nothing."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mayfly.engine.control import Control
from mayfly.guest.framing import Frame, Kind, Parser, pack_message, pack_sync

HELLO: dict[str, Any] = {"type": "hello", "protocol": 1, "protocol_min": 1, "agent": "0.1.0"}


@dataclass
class Guest:
    """The other end of the port, and the descriptor that tells of QEMU's end."""

    port: socket.socket
    gone: int

    def heard(self) -> list[Frame]:
        return list(Parser(synced=True).feed(self.port.recv(1 << 20)))

    def nonce(self) -> bytes:
        (frame,) = self.heard()
        assert frame.kind is Kind.SYNC
        return frame.payload

    def say(self, *parts: bytes | dict[str, Any]) -> None:
        for part in parts:
            self.port.sendall(part if isinstance(part, bytes) else pack_message(part))

    def end_qemu(self) -> None:
        os.eventfd_write(self.gone, 1)


@contextmanager
def strange() -> Iterator[tuple[Control, Guest]]:
    """A control port that nobody has spoken on."""
    ours, theirs = socket.socketpair()
    gone = os.eventfd(0)
    control = Control(ours, gone)
    with theirs:
        yield control, Guest(theirs, gone)
    control.close()
    os.close(gone)


@contextmanager
def introduced() -> Iterator[tuple[Control, Guest]]:
    """A control port on which the agent has greeted."""
    with strange() as (control, guest):
        control.begin()
        guest.say(pack_sync(guest.nonce()), HELLO)
        control.hello(timeout_s=10)
        yield control, guest
