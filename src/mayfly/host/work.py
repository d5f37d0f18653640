"""What would keep the service from listening is done by forked children."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mayfly.engine.forked import Forked, start_forked
from mayfly.errors import Failed, Unavailable
from mayfly.host import protocol
from mayfly.host.loop import Wait

T = TypeVar("T")
Step = Generator[Wait, int | None, T]
"""A part of a task that gives something at its end."""
Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a child did."""

    words: Mapping[str, Any]
    fds: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """The child's end: it says how far it is, and in the end what it has."""

    socket: socket.socket

    def report(self, text: str) -> None:
        """Say how far it is; the service may be gone, which is no reason to stop here."""
        with contextlib.suppress(OSError):
            protocol.send(self.socket, {"type": "progress", "text": text[:4000]})

    def done(self, words: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
        """Hand over what was made; raises ``OSError`` when the service is gone."""
        protocol.send(self.socket, {"type": "done", **words}, fds)


def work(
    body: Callable[[Channel], None],
    *,
    name: str,
    keep: Sequence[int] = (),
    heard: Report = lambda _: None,
    limit_s: float | None = None,
) -> Step[Done]:
    """Run ``body`` in a child that has only ``keep`` of our descriptors; gives what it handed over.

    Raises what the child raised, ``Failed`` when it ended without a word, ``Unavailable`` at the
    time limit, or when there can be no more processes.
    """
    child = begin(lambda channel: body(Channel(socket=channel)), name=name, keep=keep)
    try:
        while True:
            ready = yield Wait(fds=(child.channel.fileno(),), seconds=limit_s)
            if ready is None:
                child.kill()
                raise Unavailable(f"{name} was not done within {limit_s:g} s")
            message, fds = _message(child.channel, name)
            if message.get("type") == "done":
                return Done(words=message, fds=fds)
            if "kind" in message:
                raise protocol.error_of(message)
            heard(str(message.get("text", "")))
    finally:
        child.end()


def begin(body: Callable[[socket.socket], None], *, name: str, keep: Sequence[int]) -> Forked:
    """Start a child whose channel is waited for; raises ``Unavailable`` when there can be none."""
    try:
        child = start_forked(body, name=name, keep=keep)
    except OSError as error:
        # Out of processes, memory or descriptors: that passes.
        raise Unavailable(f"cannot begin {name}: {error.strerror}") from error
    child.channel.setblocking(False)
    return child


def _message(channel: socket.socket, name: str) -> tuple[dict[str, Any], list[int]]:
    try:
        got = protocol.receive(channel)
    except protocol.Garbled as error:
        raise Failed(f"{name} said what cannot be read: {error}") from error
    if got is None:
        raise Failed(f"{name} ended without a word (killed?)")
    return got


def renice(pid: int, niceness: int) -> None:
    """Set how nice all threads of a process are; without a word when it is gone."""
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            os.setpriority(os.PRIO_PROCESS, int(task), niceness)
