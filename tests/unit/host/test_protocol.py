"""Packets between clients and the service, there and back."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mayfly.errors import EXIT_AND_HTTP, Failed, Invalid, MayflyError
from mayfly.host import protocol
from mayfly.host.protocol import (
    PACKET_BYTES,
    PACKET_FDS,
    Garbled,
    error_message,
    error_of,
    receive,
    send,
)

messages = st.dictionaries(
    st.text(max_size=20),
    st.none() | st.booleans() | st.integers() | st.text(max_size=500) | st.lists(st.integers()),
    max_size=20,
)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(message=messages)
def test_what_is_sent_arrives(
    pair: tuple[socket.socket, socket.socket], message: dict[str, Any]
) -> None:
    send(pair[0], message)
    assert receive(pair[1]) == (message, [])


@pytest.mark.parametrize("count", range(PACKET_FDS + 1))
def test_so_many_descriptors_arrive(pair: tuple[socket.socket, socket.socket], count: int) -> None:
    send(pair[0], {"n": count}, [0] * count)
    got = receive(pair[1])
    assert got is not None
    assert len(got[1]) == count
    for fd in got[1]:
        assert not os.get_inheritable(fd)
        os.close(fd)


def test_packets_keep_their_borders(pair: tuple[socket.socket, socket.socket]) -> None:
    for number in range(3):
        send(pair[0], {"n": number})
    assert [receive(pair[1]) for _ in range(3)] == [({"n": n}, []) for n in range(3)]


def test_the_largest_packet_arrives_and_a_larger_one_is_not_sent(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    room = PACKET_BYTES - len('{"text": ""}')
    send(pair[0], {"text": "x" * room})
    got = receive(pair[1])
    assert got is not None
    assert len(got[0]["text"]) == room
    with pytest.raises(Invalid, match="more than a packet holds"):
        send(pair[0], {"text": "x" * (room + 1)})


def test_the_end_is_told_from_nothing_yet(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        receive(pair[1])
    pair[0].close()
    assert receive(pair[1]) is None


def test_what_was_said_before_the_end_is_still_heard(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    send(pair[1], {"never": "read"})
    send(pair[0], {"type": "error", "message": "full"})
    # With something unread, the end is a reset for the other side.
    pair[0].close()
    assert receive(pair[1]) == ({"type": "error", "message": "full"}, [])
    assert receive(pair[1]) is None


GARBLED = [b"x", b"[]", b'"text"', b"null", b"17", b"{", b'{"a": }', b"\xff", b"[" * 50_000]


@pytest.mark.parametrize("data", GARBLED, ids=lambda data: repr(data[:9]))
def test_what_is_no_object_is_garbled_and_its_descriptors_are_closed(
    pair: tuple[socket.socket, socket.socket], data: bytes
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1]))]
    pair[0].sendmsg([data], rights)
    with pytest.raises(Garbled):
        receive(pair[1])
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(("size", "count"), [(PACKET_BYTES + 1, 0), (10, PACKET_FDS + 1)])
def test_too_much_is_garbled(
    pair: tuple[socket.socket, socket.socket], size: int, count: int
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * count))]
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    pair[0].sendmsg([b"{}" + b" " * (size - 2)], rights if count else [])
    with pytest.raises(Garbled, match="too long, or has too many"):
        receive(pair[1])
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("kind", EXIT_AND_HTTP)
def test_an_error_comes_back_as_what_it_was(kind: type[MayflyError]) -> None:
    error = error_of(error_message(kind("what", hint="why")))
    assert (type(error), error.message, error.hint) == (kind, "what", "why")


@pytest.mark.parametrize("message", [{}, {"kind": "NoSuchKind"}, {"kind": 7, "message": None}])
def test_an_unknown_error_is_a_failure(message: dict[str, object]) -> None:
    assert isinstance(error_of(message), Failed)


def test_the_oldest_protocol_is_one_that_there_is() -> None:
    assert 1 <= protocol.OLDEST <= protocol.PROTOCOL
