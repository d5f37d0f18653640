"""Talking with a QEMU that takes its time, without keeping others waiting."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from mayfly.engine.monitor import Monitor
from mayfly.errors import Failed, Unavailable
from mayfly.host.loop import Loop, Wait
from mayfly.host.qemu import replied
from mayfly.host.work import Step


@pytest.fixture
def ends() -> Iterator[tuple[Monitor, socket.socket]]:
    """A monitor, and QEMU's end of it."""
    ours, theirs = socket.socketpair()
    with theirs, Monitor(ours) as monitor:
        yield monitor, theirs


def says(port: socket.socket, number: int, **fields: object) -> None:
    port.sendall(json.dumps({**fields, "id": number}).encode() + b"\n")


def result(step: Step[Any]) -> Any:
    """Let a step wait until it has something."""
    loop, found = Loop(), []

    def task() -> Iterator[Wait]:
        found.append((yield from step))

    loop.spawn(task())  # type: ignore[arg-type]  # it is sent nothing that it needs
    while not found:
        loop.run_once(0.5)
    return found[0]


def test_an_answer_that_came_too_late_is_nobodys(ends: tuple[Monitor, socket.socket]) -> None:
    monitor, qemu = ends
    monitor.send("stop")
    with pytest.raises(Unavailable, match=r"QEMU did not answer 'stop' within 0\.01 s"):
        result(replied(monitor, "stop", 0.01))
    monitor.send("query-status")
    says(qemu, 1, **{"return": "too late"})
    says(qemu, 2, **{"return": "paused"})
    assert result(replied(monitor, "query-status", 20)) == "paused"


def test_what_qemu_refuses_is_a_failure(ends: tuple[Monitor, socket.socket]) -> None:
    monitor, qemu = ends
    monitor.send("stop")
    says(qemu, 1, error={"desc": "not now"})
    with pytest.raises(Failed, match="QEMU refused 'stop': not now"):
        result(replied(monitor, "stop"))


def test_a_qemu_that_ends_is_a_failure(ends: tuple[Monitor, socket.socket]) -> None:
    monitor, qemu = ends
    monitor.send("stop")
    qemu.close()
    with pytest.raises(Failed):
        result(replied(monitor, "stop"))
