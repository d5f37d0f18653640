"""Ports that are added for one conversation; a terminal stands for the device."""

from __future__ import annotations

import os
import pty
import signal
import tty
from collections.abc import Iterator

import pytest

from mayfly.guest import sessions
from mayfly.guest.fields import Refused
from mayfly.guest.framing import pack_message, pack_sync
from mayfly.guest.loop import Loop
from mayfly.guest.machine import Machine, oneself
from mayfly.guest.sessions import receive_visit

NAME = "org.mayfly.visit.7"
NONCE = b"0123456789abcdef"
TURNS = 400


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """The loop is made for a process of its own: it takes signals about children."""
    before = signal.getsignal(signal.SIGCHLD)
    yield
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, before)


@pytest.fixture
def device() -> Iterator[tuple[int, str]]:
    """A host's end, and the path of the machine's."""
    near, far = pty.openpty()
    tty.setraw(far)
    os.set_blocking(near, False)
    yield near, os.ttyname(far)
    os.close(far)


def machine() -> Machine:
    found = Machine()
    found.claimed(oneself(), root_allowed=False)
    return found


def turns(loop: Loop, until: str, heard: bytearray, near: int) -> None:
    """Let the loop go round until the host has heard something."""
    for _ in range(TURNS):
        loop.after(0.01, lambda: None)
        loop.turn()
        try:
            heard += os.read(near, 65536)
        except BlockingIOError:
            continue
        if until.encode() in heard:
            return
    raise AssertionError(f"no {until} in {bytes(heard)!r}")


@pytest.mark.parametrize(
    "name", ["", "org.mayfly.session", "org.mayfly.visit.", f"../{NAME}", f"{NAME}77", f"{NAME}\n"]
)
def test_only_ports_of_visits_are_served(name: str) -> None:
    with pytest.raises(Refused, match="is no port of a visit"):
        receive_visit(Loop(), machine(), name, lambda trouble: None)


def test_a_port_that_does_not_come_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "VISIT_S", 0.03)
    monkeypatch.setattr(sessions, "find_device", lambda name: None)
    told: list[str] = []
    loop = Loop()
    receive_visit(loop, machine(), NAME, told.append)
    while not told:
        loop.turn()
    assert told == [f"the port {NAME} did not appear"]


def test_a_port_that_cannot_be_opened_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "find_device", lambda name: f"/nowhere/{name}")
    told: list[str] = []
    receive_visit(Loop(), machine(), NAME, told.append)
    assert told == [f"the port {NAME} cannot be opened: No such file or directory"]


def test_a_job_runs_through_a_port_that_came_later(
    monkeypatch: pytest.MonkeyPatch, device: tuple[int, str]
) -> None:
    near, path = device
    ways = iter([None, None, path])
    monkeypatch.setattr(sessions, "find_device", lambda name: next(ways))
    told: list[str] = []
    loop = Loop()
    receive_visit(loop, machine(), NAME, told.append)
    while not told:
        loop.turn()
    assert told == [""]
    heard = bytearray()
    os.write(near, pack_sync(NONCE))
    turns(loop, NONCE.decode(), heard, near)
    start = {"type": "start", "argv": ["/bin/sh", "-c", "echo whole"], "cwd": "/", "env": {}}
    os.write(near, pack_message(start))
    turns(loop, '"bye"', heard, near)
    assert b"whole" in heard
    before = len(os.listdir("/proc/self/fd"))
    os.close(near)
    for _ in range(TURNS):
        loop.after(0.01, lambda: None)
        loop.turn()
        if len(os.listdir("/proc/self/fd")) < before - 1:
            break
    # The host's end, and the machine's: it is not kept open for another conversation.
    assert len(os.listdir("/proc/self/fd")) == before - 2
