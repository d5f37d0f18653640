"""The client's end of a connection to the service."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mayfly.errors import Denied, Failed, Quota, Unavailable
from mayfly.host import client, protocol

Script = Callable[[socket.socket], None]


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "host.sock"


@contextmanager
def service(path: Path, script: Script) -> Iterator[client.Connection]:
    """Give a connection to somebody who follows a script."""

    def serve() -> None:
        with listener.accept()[0] as port:
            script(port)

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        connection = client.require(path)
        try:
            yield connection
        finally:
            connection.close()
            thread.join()


def says(*messages: dict[str, Any]) -> Script:
    """Answer one request with these."""

    def script(port: socket.socket) -> None:
        assert protocol.receive(port) is not None
        for message in messages:
            protocol.send(port, message)
        port.recv(1)

    return script


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, client.SOCKET),
        ({"MAYFLY_HOST_SOCKET": "/x/y"}, Path("/x/y")),
        ({"MAYFLY_HOST_SOCKET": "none"}, None),
        ({"MAYFLY_HOST_SOCKET": ""}, client.SOCKET),
        ({"MAYFLY_HOME": "/home"}, None),
        ({"MAYFLY_HOME": "/home", "MAYFLY_HOST_SOCKET": "/x/y"}, Path("/x/y")),
    ],
)
def test_where_the_service_is_to_be_asked(environ: dict[str, str], expected: Path | None) -> None:
    assert client.socket_path(environ) == expected


def test_where_there_is_none_there_is_no_connection(path: Path) -> None:
    assert client.connect(None) is None
    assert client.connect(path) is None
    assert client.connect(Path("/etc/passwd/host.sock")) is None
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(path))
    assert client.connect(path) is None


def test_a_service_that_was_killed_is_waited_for(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as again:
        again.bind(f"{path}.new")
        again.listen()

        def starts_again() -> None:
            Path(f"{path}.new").rename(path)

        connection = client.connect(path, patience_s=60, waiting=starts_again)
        assert connection is not None
        connection.close()


def test_a_service_that_stays_dead_is_not_waited_for_longer(path: Path) -> None:
    told: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(path))
    assert client.connect(path, patience_s=0.2, waiting=lambda: told.append("once")) is None
    assert told == ["once"]


def test_who_needs_one_is_told(path: Path) -> None:
    for where in (None, path):
        with pytest.raises(Unavailable, match="no host service listens at"):
            client.require(where)


def test_something_else_there_is_no_service(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(Unavailable, match=f"cannot connect to {path}"):
            client.connect(path)


def test_an_answer_comes_with_what_was_said_before(path: Path) -> None:
    heard: list[str] = []
    told = [{"type": "progress", "text": "half"}, {"type": "ok", "version": "1"}]
    with service(path, says(*told)) as connection:
        connection.ask("status")
        answer, fds = connection.answer(lambda message, fds: heard.append(message["text"]))
    assert (answer["version"], fds, heard) == ("1", [], ["half"])


def test_items_are_put_together(path: Path) -> None:
    told: list[dict[str, Any]] = [
        {"type": "items", "items": [{"n": 1}, {"n": 2}]},
        {"type": "items", "items": [{"n": 3}]},
        {"type": "ok"},
    ]
    with service(path, says(*told)) as connection:
        assert client.call(connection, "list")[1] == [{"n": 1}, {"n": 2}, {"n": 3}]


def test_descriptors_that_nobody_wants_are_closed(path: Path) -> None:
    def script(port: socket.socket) -> None:
        protocol.receive(port)
        protocol.send(port, {"type": "ok"}, [0, 1])
        port.recv(1)

    before = len(os.listdir("/proc/self/fd"))
    with service(path, script) as connection:
        assert client.call(connection, "show")[0] == {"type": "ok"}
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_error_is_raised(path: Path) -> None:
    told = {"type": "error", "kind": "Denied", "message": "not you", "hint": "ask"}
    with service(path, says(told)) as connection:
        connection.ask("drain")
        with pytest.raises(Denied, match="not you"):
            connection.answer()


def test_silence_is_not_waited_for_for_ever(path: Path) -> None:
    with service(path, says()) as connection:
        connection.ask("status")
        with pytest.raises(Unavailable, match="no answer in time"):
            connection.answer(limit_s=0.05)


def test_a_service_that_ends_is_unavailable(path: Path) -> None:
    with service(path, lambda port: None) as connection:
        with pytest.raises(Unavailable, match="it closed the connection"):
            connection.answer()
        connection.ask("status")
        with pytest.raises(Unavailable):
            connection.answer()


def test_a_service_that_refuses_before_it_was_asked_is_heard(path: Path) -> None:
    def script(port: socket.socket) -> None:
        protocol.send(port, {"type": "error", "kind": "Quota", "message": "64 connections"})

    with service(path, script) as connection:
        connection.ask("status")
        with pytest.raises(Quota, match="64 connections"):
            connection.answer()


def test_nonsense_is_a_failure(path: Path) -> None:
    def script(port: socket.socket) -> None:
        port.send(b"nonsense")
        port.recv(1)

    with service(path, script) as connection, pytest.raises(Failed, match="answered with"):
        connection.answer()


def test_the_last_words_are_those_of_the_machines_end(path: Path) -> None:
    told = [
        {"type": "progress", "text": "x"},
        {"type": "ended", "reason": "it was deleted", "who": "mayfly"},
    ]
    with service(path, says(*told)) as connection:
        connection.ask("claim")
        words = connection.last_words()
    assert words is not None
    assert words["reason"] == "it was deleted"


@pytest.mark.parametrize("script", [says(), says({"type": "ok"}), lambda port: None])
def test_there_may_be_none(path: Path, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ENDED_S", 0.05)
    with service(path, script) as connection:
        connection.ask("claim")
        assert connection.last_words() is None
