"""Talk to one QEMU over its monitor socket (QMP, the protocol of docs/interop/qmp-spec in QEMU)."""

from __future__ import annotations

import json
import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Self

from mayfly.engine.readable import readable
from mayfly.errors import Failed, Unavailable

REPLY_TIMEOUT_S = 60.0
STATE_WITHOUT_MEMORY = {
    "capabilities": [{"capability": name, "state": True} for name in ("x-ignore-shared", "events")]
}
"""Arguments of migrate-set-capabilities: memory that is shared stays where it is; tell the end."""
WITH_MEMORY = {
    "capabilities": [
        {"capability": "x-ignore-shared", "state": False},
        {"capability": "events", "state": True},
    ]
}
"""The same, for a state that has the memory in it, wherever that is."""
LINE_LIMIT = 32 << 20
READS_AT_ONCE = 4
"""A QEMU that talks without end does not keep us from all else."""
UNREAD_MOST = 10_000
"""Messages that nobody has looked at: an honest QEMU sends a few a second."""


class Monitor:
    """A connected monitor.

    Every method raises ``Failed`` when QEMU refuses or is gone, ``Unavailable`` when it is silent.
    """

    def __init__(self, connection: socket.socket, *, timeout_s: float = REPLY_TIMEOUT_S) -> None:
        self._socket = connection
        self._timeout_s = timeout_s
        self._buffer = bytearray()
        self._events: list[dict[str, Any]] = []
        self._answers: deque[dict[str, Any]] = deque()
        self._last_id = 0
        self._unanswered: deque[int] = deque()
        self._broken = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; QEMU goes on."""
        self._socket.close()

    def negotiate(self, *, timeout_s: float | None = None) -> None:
        """Read the greeting and leave the capabilities mode."""
        usual = self._timeout_s
        self._timeout_s = usual if timeout_s is None else timeout_s
        try:
            greeting = self._answer(time.monotonic() + self._timeout_s)
            if "QMP" not in greeting:
                raise Failed(f"QEMU's monitor began with {str(greeting)[:200]}")
            self.call("qmp_capabilities")
        finally:
            self._timeout_s = usual

    def call(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        fds: Sequence[int] = (),
        timeout_s: float | None = None,
    ) -> Any:
        """Run one command and give what it returned; ``fds`` travel with it."""
        self.send(command, arguments, fds=fds)
        return self.reply(command, timeout_s=timeout_s)

    def send(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        fds: Sequence[int] = (),
    ) -> None:
        """Send a command without waiting; ``reply`` is then called once for each, in order."""
        self._last_id += 1
        request: dict[str, Any] = {"execute": command, "id": self._last_id}
        if arguments is not None:
            request["arguments"] = dict(arguments)
        text = json.dumps(request).encode() + b"\n"
        try:
            if fds:
                socket.send_fds(self._socket, [text], list(fds))
            else:
                self._socket.sendall(text)
        except OSError as error:
            raise Failed(f"QEMU is gone: its monitor took no '{command}': {error}") from error
        self._unanswered.append(self._last_id)

    def reply(self, command: str, *, timeout_s: float | None = None) -> Any:
        """Give the result of the earliest command still unanswered."""
        number = self._unanswered.popleft()
        deadline = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        while True:
            message = self._answer(deadline)
            if message.get("id", number) != number:
                continue  # The late answer to a command that was given up.
            if "error" in message:
                raise Failed(f"QEMU refused '{command}': {message['error'].get('desc')}")
            if "return" in message:
                return message["return"]

    def arrived(self) -> bool:
        """Read what is there without waiting; tell whether ``reply`` would return, or raise, now.

        True also when QEMU is gone: ``reply`` has the reason.
        """
        number = self._unanswered[0]
        try:
            self._read_all()
        except Failed:
            return True
        return any(message.get("id", number) == number for message in self._answers)

    def give_up(self) -> None:
        """Wait no more for the earliest unanswered command: its answer will be passed over."""
        self._unanswered.popleft()

    def wait_event(
        self, name: str, *, timeout_s: float, field: str = "", among: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Wait for an event (whose data ``field`` is one of ``among``) and give its data."""
        deadline = time.monotonic() + timeout_s
        while True:
            for index, event in enumerate(self._events):
                data: dict[str, Any] = event.get("data", {})
                if event["event"] == name and (not field or data.get(field) in among):
                    del self._events[: index + 1]
                    return data
            self._wait(deadline)

    def fileno(self) -> int:
        """Give the descriptor to wait on for events."""
        return self._socket.fileno()

    def events(self) -> list[dict[str, Any]]:
        """Give the events that have arrived, without waiting."""
        try:
            self._read_all()
        except Failed:
            # What it said before its end comes first; the next call raises this again.
            if not self._events:
                raise
        found, self._events = self._events, []
        return found

    def finish_line(self) -> None:
        """Read on until no message is half read, so that another process may go on from here."""
        deadline = time.monotonic() + self._timeout_s
        self._read_all()
        while self._buffer:
            self._wait(deadline)

    def _answer(self, deadline: float) -> dict[str, Any]:
        """Give the next message that is no event."""
        while not self._answers:
            self._wait(deadline)
        return self._answers.popleft()

    def _wait(self, deadline: float) -> None:
        """Take what comes next."""
        remaining = deadline - time.monotonic()
        if remaining <= 0 or not readable([self.fileno()], remaining):
            raise Unavailable("QEMU's monitor did not answer in time: stopped or overloaded?")
        self._receive()

    def _read_all(self) -> None:
        for _ in range(READS_AT_ONCE):
            if not readable([self.fileno()], 0):
                break
            self._receive()

    def _receive(self) -> None:
        if self._broken:
            raise Failed(self._broken)
        try:
            data = self._socket.recv(65536)
        except OSError as error:
            raise Failed(f"QEMU is gone: {error}") from error
        if not data:
            raise Failed("QEMU ended while it was talked to")
        self._buffer += data
        try:
            self._sort()
        except Failed as error:
            # What follows cannot be trusted either.
            self._broken = error.message
            raise

    def _sort(self) -> None:
        while (message := self._next()) is not None:
            (self._events if "event" in message else self._answers).append(message)
        if len(self._buffer) > LINE_LIMIT:
            raise Failed("QEMU's monitor sent an endless line")
        if len(self._events) + len(self._answers) > UNREAD_MOST:
            raise Failed("QEMU's monitor sends messages without end")

    def _next(self) -> dict[str, Any] | None:
        """Give the next whole message among what is here."""
        end = self._buffer.find(b"\n")
        if end < 0:
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        try:
            message = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise Failed(f"QEMU's monitor sent {line[:100]!r}") from error
        if not isinstance(message, dict) or not all(
            isinstance(message.get(name, {}), dict) for name in ("data", "error")
        ):
            raise Failed(f"QEMU's monitor sent {line[:100]!r}")
        return message
