"""The user's streams: never blocking, never changed for others."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mayfly.engine.session import streams
from mayfly.engine.session.streams import Input, Manner, Output, open_private
from tests.unit.engine.sessions import NOT_OPEN, close, pipe

MIB = 1 << 20


@pytest.fixture
def not_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a pipe of another user, which may not be opened again."""
    monkeypatch.setattr(streams, "_open_again", lambda *_, **__: None)


def non_blocking(fd: int) -> bool:
    return bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[dict[str, int]]:
    """One descriptor of every kind that can be both read and written."""
    master, slave = pty.openpty()
    ours, theirs = socket.socketpair()
    os.mkfifo(tmp_path / "fifo")
    made = {
        "file": os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT),
        "null": os.open("/dev/null", os.O_RDWR),
        "fifo": os.open(tmp_path / "fifo", os.O_RDWR),
        "terminal": slave,
        "ptmx": master,
        "socket": ours.fileno(),
    }
    yield made
    for fd in (*made.values(), theirs.fileno()):
        if fd not in {ours.fileno(), theirs.fileno()}:
            close(fd)
    ours.close()
    theirs.close()


@pytest.mark.parametrize(
    ("kind", "manner"),
    [
        ("file", Manner.PLAIN),
        ("null", Manner.PLAIN),
        ("fifo", Manner.OWN),
        ("terminal", Manner.OWN),
        ("ptmx", Manner.SHARED),
        ("socket", Manner.SOCKET),
    ],
)
@pytest.mark.parametrize("writing", [False, True])
def test_manner_of_every_kind(
    files: dict[str, int], kind: str, manner: Manner, writing: bool
) -> None:
    private = open_private(files[kind], writing=writing)
    assert private is not None
    assert private.manner is manner
    assert private.fd not in {0, 1, 2, files[kind]}
    assert not os.get_inheritable(private.fd)
    assert not non_blocking(files[kind])
    assert non_blocking(private.fd) is (manner is Manner.OWN)
    os.close(private.fd)


def test_end_of_a_pipe_that_goes_the_other_way() -> None:
    with pipe() as (source, sink):
        output, source_input = Output(source), Input(sink)
        assert output.write(b"x") == 0
        assert output.broken is not None
        assert output.broken.errno == errno.EBADF
        assert (source_input.read(10), source_input.ended) == (b"", True)
        output.close()
        source_input.close()


def test_full_pipe_keeps_the_rest() -> None:
    with pipe() as (source, sink):
        output = Output(sink)
        delivered = output.write(b"a" * MIB)
        assert delivered + output.waiting == MIB
        assert output.flush() == 0
        got = os.read(source, 100_000)
        delivered += output.flush()
        while output.waiting:
            got += os.read(source, MIB)
            delivered += output.flush()
        output.close()
        close(sink)
        while piece := os.read(source, MIB):
            got += piece
        assert (delivered, got) == (MIB, b"a" * MIB)


@pytest.mark.usefixtures("not_twice")
def test_pipe_that_cannot_be_opened_twice_is_never_blocked_on() -> None:
    with pipe() as (source, sink):
        output = Output(sink)
        assert output.write(b"b" * MIB) == 0
        poll = select.poll()
        poll.register(output.fd, select.POLLOUT)
        written = 0
        while poll.poll(0):
            written += output.flush()
        assert 60_000 <= written < MIB
        assert output.waiting == MIB - written
        assert len(os.read(source, MIB)) == written
        output.close()


@pytest.mark.usefixtures("not_twice")
def test_pipe_that_cannot_be_opened_twice_is_read() -> None:
    with pipe() as (source, sink):
        os.write(sink, b"some")
        reader = Input(source)
        assert (reader.read(100), reader.ended) == (b"some", False)
        close(sink)
        assert (reader.read(100), reader.ended) == (b"", True)
        reader.close()


def test_reading_when_there_is_nothing_does_not_wait() -> None:
    ours, theirs = socket.socketpair()
    with pipe() as (source, _), ours, theirs:
        for fd in (source, ours.fileno()):
            reader = Input(fd)
            assert (reader.read(100), reader.ended) == (b"", False)
            reader.close()


def test_limit_of_a_read() -> None:
    with pipe() as (source, sink):
        os.write(sink, b"123456")
        reader = Input(source)
        assert [reader.read(4), reader.read(4)] == [b"1234", b"56"]
        reader.stop()
        assert reader.read(4) == b""
        reader.close()


def test_reader_that_is_gone() -> None:
    ours, theirs = socket.socketpair()
    with pipe() as (source, sink), ours:
        close(source)
        theirs.close()
        for fd in (sink, ours.fileno()):
            output = Output(fd)
            assert output.write(b"x" * 10) == 0
            assert output.broken is not None
            assert output.broken.errno == errno.EPIPE
            assert (output.write(b"y"), output.waiting) == (0, 0)
            output.close()


def test_reader_that_goes_with_something_waiting() -> None:
    with pipe() as (source, sink):
        output = Output(sink)
        output.write(b"x" * MIB)
        close(source)
        assert output.flush() == 0
        assert output.broken is not None
        assert output.waiting == 0
        output.close()


def test_what_is_closed() -> None:
    output, reader = Output(NOT_OPEN), Input(NOT_OPEN)
    assert (output.write(b"abc"), output.waiting, output.fd) == (3, 0, -1)
    assert (reader.read(1), reader.ended, reader.fd) == (b"", True, -1)
    output.close()
    reader.close()


def test_drop_forgets_what_waits() -> None:
    with pipe() as (_, sink):
        output = Output(sink)
        output.write(bytes(MIB))
        waiting = output.waiting
        assert waiting > 0
        assert output.drop() == waiting
        assert output.waiting == 0
        output.close()
