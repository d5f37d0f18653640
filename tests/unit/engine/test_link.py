"""The queue of frames, and the answer to SYNC in whatever stands before it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.engine.session.link import QUEUE_LIMIT, Link
from mayfly.guest.framing import SYNC_HEADER, Frame, FrameError, Kind, pack, pack_sync

NONCE = b"0123456789abcdef"
Pair = tuple[Link, socket.socket]


@contextmanager
def connected() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield Link(ours, NONCE), theirs


@pytest.fixture
def pair() -> Iterator[Pair]:
    with connected() as made:
        yield made


def frames(link: Link) -> list[Frame]:
    return list(link.receive())


def test_sync_goes_first_and_nothing_is_heard_before_its_answer(pair: Pair) -> None:
    link, theirs = pair
    link.flush()
    assert theirs.recv(100) == pack_sync(NONCE)
    assert frames(link) == []
    theirs.send(pack(Kind.DATA, 1, b"old") + pack_sync(b"x" * 16) + b"\xff" * 50)
    assert frames(link) == []
    theirs.send(pack_sync(NONCE) + pack(Kind.EOF, 1))
    assert [frame.kind for frame in frames(link)] == [Kind.SYNC, Kind.EOF]
    assert link.synced


@given(st.binary(max_size=60), st.lists(st.integers(1, 30), min_size=1, max_size=8))
def test_answer_is_found_however_it_is_cut(before: bytes, cuts: list[int]) -> None:
    data = before + SYNC_HEADER + pack_sync(NONCE) + pack(Kind.EOF, 2)
    got: list[Frame] = []
    with connected() as (link, theirs):
        for count in range(len(data)):
            step = cuts[count % len(cuts)]
            theirs.send(data[:step])
            data = data[step:]
            got += frames(link)
    assert [frame.kind for frame in got] == [Kind.SYNC, Kind.EOF]


def test_queue_fills_and_drains(pair: Pair) -> None:
    link, theirs = pair
    link.send(bytes(4 * QUEUE_LIMIT))
    link.flush()
    assert link.full
    received = 0
    while link.queued:
        received += len(theirs.recv(1 << 20))
        link.flush()
    assert received > 3 * QUEUE_LIMIT


def test_end_of_the_other_side(pair: Pair) -> None:
    link, theirs = pair
    theirs.send(pack_sync(NONCE) + pack(Kind.DATA, 1, b"last"))
    theirs.close()
    link.send(bytes(100))
    link.flush()
    assert [frame.kind for frame in frames(link)] == [Kind.SYNC, Kind.DATA]
    states = [link.closed]
    assert frames(link) == []
    states.append(link.closed)
    assert states == [False, True]
    link.send(b"x")
    link.flush()
    assert link.queued == 1


def test_long_message_is_refused(pair: Pair) -> None:
    link, theirs = pair
    theirs.send(pack_sync(NONCE) + pack(Kind.MESSAGE, 1, bytes(60_000)) * 2)
    with pytest.raises(FrameError, match="message exceeds"):
        frames(link)
