"""A QEMU that answers its monitor as a test wants, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mayfly.engine.monitor import Monitor

Answer = Callable[[dict[str, Any]], Any]
"""Gives what a command returns, from its arguments; raises ``Refusal``."""
PATIENCE_S = 10.0


class Refusal(Exception):
    """QEMU says no."""


def _nothing(_: dict[str, Any]) -> dict[str, Any]:
    return {}


class FakeQmp:
    """Answers a monitor's commands; those that it was not told of return nothing."""

    def __init__(self, port: socket.socket) -> None:
        self._port = port
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, Answer] = {}

    def tell(self, name: str, answer: Any) -> None:
        """Have a command return always the same."""
        self.answers[name] = lambda _: answer

    def refuse(self, name: str, words: str) -> None:
        """Have a command fail."""

        def answer(_: Mapping[str, Any]) -> None:
            raise Refusal(words)

        self.answers[name] = answer

    def jobs_end(self, error: str | None = None) -> None:
        """Have every job end at once, well or with an error."""
        ids: list[str] = []

        def start(arguments: dict[str, Any]) -> None:
            ids.append(arguments["job-id"])
            for status in ("created", "running", "concluded"):
                self._event("JOB_STATUS_CHANGE", {"id": ids[-1], "status": status})

        def query(_: dict[str, Any]) -> list[dict[str, Any]]:
            failed = {} if error is None else {"error": error}
            return [{"id": ids[-1], "status": "concluded", **failed}]

        def dismiss(arguments: dict[str, Any]) -> None:
            self._event("JOB_STATUS_CHANGE", {"id": arguments["id"], "status": "null"})

        for name in ("snapshot-save", "snapshot-load", "snapshot-delete", "blockdev-create"):
            self.answers[name] = start
        self.answers["query-jobs"] = query
        self.answers["job-dismiss"] = dismiss

    def names(self) -> list[str]:
        """Give the commands that have come."""
        return [name for name, _ in self.asked]

    def serve(self) -> None:
        """Answer until the other end is closed."""
        with contextlib.suppress(OSError):
            for line in self._port.makefile("rb"):
                self._answer(json.loads(line))

    def _answer(self, request: dict[str, Any]) -> None:
        name, arguments = request["execute"], request.get("arguments", {})
        self.asked.append((name, arguments))
        try:
            answer: Answer = self.answers.get(name, _nothing)
            found = answer(arguments)
            reply: dict[str, Any] = {"return": {} if found is None else found}
        except Refusal as error:
            reply = {"error": {"class": "GenericError", "desc": str(error)}}
        self._say({**reply, "id": request["id"]})

    def _event(self, name: str, data: dict[str, Any]) -> None:
        self._say({"event": name, "data": data})

    def _say(self, message: dict[str, Any]) -> None:
        self._port.sendall(json.dumps(message).encode() + b"\n")


@contextmanager
def monitored() -> Iterator[tuple[FakeQmp, Monitor]]:
    """Give a QEMU and a monitor that is connected to it."""
    ours, theirs = socket.socketpair()
    qmp = FakeQmp(theirs)
    thread = threading.Thread(target=qmp.serve)
    thread.start()
    with theirs, Monitor(ours, timeout_s=PATIENCE_S) as monitor:
        try:
            yield qmp, monitor
        finally:
            ours.shutdown(socket.SHUT_RDWR)
            thread.join()
