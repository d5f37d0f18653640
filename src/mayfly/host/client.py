"""The client's end: ask the host service on this computer. Imported by every ``mayfly run``."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mayfly.errors import Failed, Unavailable
from mayfly.host import protocol

SOCKET = Path("/run/mayfly/host.sock")
ANSWER_LIMIT_S = 60.0
ENDED_S = 1.0
RESTART_S = 5.0
"""How long a service that was killed may take to be there again."""
POLL_S = 0.05

Heard = Callable[[Mapping[str, Any], Sequence[int]], None]
"""Called with each message before the answer, and the descriptors that came along."""


def socket_path(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Give where the service is to be asked, None where it is not to be.

    ``MAYFLY_HOST_SOCKET`` names another socket, or ``none``; a ``MAYFLY_HOME`` of one's own means
    to do without the host's service unless one is named.
    """
    named = environ.get("MAYFLY_HOST_SOCKET")
    if named:
        return None if named == "none" else Path(named)
    return None if environ.get("MAYFLY_HOME") else SOCKET


class Connection:
    """A connection to the service; when it is closed, so is what was had through it."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def close(self) -> None:
        """End it."""
        self._socket.close()

    def ask(self, op: str, fields: Mapping[str, Any] | None = None) -> None:
        """Send a request."""
        try:
            protocol.send(self._socket, {"v": protocol.PROTOCOL, "op": op, **(fields or {})})
        except BrokenPipeError:
            # It may have said why: ``answer`` reads it.
            pass
        except OSError as error:
            raise _gone(error.strerror or str(error)) from error

    def answer(
        self, heard: Heard = lambda message, fds: None, *, limit_s: float | None = ANSWER_LIMIT_S
    ) -> tuple[dict[str, Any], list[int]]:
        """Wait for the answer; gives it with the descriptors that came along.

        Raises what the service answered; ``Unavailable`` when it is gone or silent.
        """
        self._socket.settimeout(limit_s)
        while True:
            try:
                got = protocol.receive(self._socket)
            except TimeoutError:
                raise _gone("no answer in time") from None
            except protocol.Garbled as error:
                raise Failed(f"the host service answered with {error}") from error
            if got is None:
                raise _gone("it closed the connection")
            message, fds = got
            kind = message.get("type")
            if kind == "ok":
                return message, fds
            if kind == "error":
                raise protocol.error_of(message)
            heard(message, fds)

    def last_words(self) -> Mapping[str, Any] | None:
        """Give what the service said about the machine's end, if it says so within a moment."""
        self._socket.settimeout(ENDED_S)
        try:
            while (got := protocol.receive(self._socket)) is not None:
                if got[0].get("type") == "ended":
                    return got[0]
        except (OSError, protocol.Garbled):
            pass
        return None


def connect(
    path: Path | None, *, patience_s: float = 0.0, waiting: Callable[[], None] = lambda: None
) -> Connection | None:
    """Connect to the service; None when there is none. Raises ``Unavailable`` when it is full.

    A service that ends removes its socket: one at which nobody listens was left by one that was
    killed. ``patience_s`` is how long to wait for the next, after a call of ``waiting``.
    """
    if path is None:
        return None
    deadline = time.monotonic() + patience_s
    told = False
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.connect(str(path))
        except (FileNotFoundError, NotADirectoryError):
            connection.close()
            return None
        except ConnectionRefusedError:
            connection.close()
            if time.monotonic() >= deadline:
                return None
        except OSError as error:
            connection.close()
            raise _gone(f"cannot connect to {path}: {error.strerror}") from error
        else:
            return Connection(connection)
        if not told:
            waiting()
            told = True
        time.sleep(POLL_S)


def require(path: Path | None) -> Connection:
    """Connect to the service; raises ``Unavailable`` when there is none."""
    connection = connect(path)
    if connection is None:
        raise Unavailable(
            f"no host service listens at {path or SOCKET}",
            hint="root starts it with 'mayfly host serve', or 'systemctl start mayfly-host'",
        )
    return connection


def call(
    connection: Connection, op: str, fields: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ask, and give the answer and the items that came before it."""
    items: list[dict[str, Any]] = []

    def heard(message: Mapping[str, Any], _: Sequence[int]) -> None:
        if message.get("type") == "items":
            items.extend(message.get("items", []))

    connection.ask(op, fields)
    answer, fds = connection.answer(heard)
    for fd in fds:
        os.close(fd)
    return answer, items


def _gone(why: str) -> Unavailable:
    return Unavailable(
        f"the host service is not there, or too busy: {why}",
        hint="'mayfly host status' asks it again; its log says more",
    )
