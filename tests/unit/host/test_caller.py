"""What callers are told, in packets that they can take."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.errors import Denied
from mayfly.host import protocol
from mayfly.host.caller import Caller, open_process, parts
from mayfly.host.peer import Peer

PEER = Peer(pid=os.getpid(), uid=54_321, gid=54_321, gids=(), started=1)


@pytest.fixture
def ends() -> Iterator[tuple[Caller, socket.socket]]:
    """A caller, and its own end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    with ours, theirs:
        yield Caller(ours, PEER), theirs


def idle(caller: Caller) -> bool:
    """Tell whether a caller is idle now: asked each time."""
    return caller.is_idle


def heard(port: socket.socket) -> list[dict[str, Any]]:
    """Give what has come."""
    found = []
    try:
        while (got := protocol.receive(port)) is not None:
            found.append(got[0])
    except BlockingIOError:
        pass
    return found


def test_an_answer_makes_it_idle(ends: tuple[Caller, socket.socket]) -> None:
    caller, port = ends
    caller.asking = True
    caller.progress("half of it")
    assert idle(caller) is False
    caller.ok({"machine": "a2b3c4d5"})
    assert idle(caller) is True
    assert heard(port) == [
        {"type": "progress", "text": "half of it"},
        {"type": "ok", "machine": "a2b3c4d5"},
    ]


def test_an_error_is_an_answer_and_a_refusal_is_none(ends: tuple[Caller, socket.socket]) -> None:
    caller, port = ends
    caller.asking = True
    caller.refuse(Denied("not now"))
    assert idle(caller) is False
    caller.fail(Denied("never", hint="ask somebody else"))
    assert idle(caller) is True
    assert [(one["kind"], one["message"]) for one in heard(port)] == [
        ("Denied", "not now"),
        ("Denied", "never"),
    ]


def test_descriptors_go_along(ends: tuple[Caller, socket.socket]) -> None:
    caller, port = ends
    read, write = os.pipe()
    caller.ok({}, [read, write])
    os.close(read)
    os.close(write)
    got = protocol.receive(port)
    assert got is not None
    os.write(got[1][1], b"x")
    assert os.read(got[1][0], 1) == b"x"
    for fd in got[1]:
        os.close(fd)


def test_what_is_said_to_one_that_has_gone_is_dropped(ends: tuple[Caller, socket.socket]) -> None:
    caller, port = ends
    port.close()
    caller.progress("does anybody hear?")
    assert caller.gone
    caller.ok()
    caller.items([{"text": "x"}])


def test_one_that_does_not_read_is_given_up(ends: tuple[Caller, socket.socket]) -> None:
    caller, port = ends
    for _ in range(10_000):
        caller.progress("x" * 4000)
        if caller.gone:
            break
    assert caller.gone
    assert len(heard(port)) > 100


items = st.lists(
    st.fixed_dictionaries({"id": st.text(max_size=8), "command": st.text(max_size=300)}),
    max_size=300,
)


@given(items=items)
def test_any_list_comes_whole(items: list[dict[str, str]]) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    with ours, theirs:
        Caller(ours, PEER).items(items)
        *lists, end = heard(theirs)
    assert [one for each in lists for one in each["items"]] == items
    assert end == {"type": "ok"}


@given(text=st.text(max_size=200_000 // 12))
def test_any_text_comes_whole_in_parts_that_fit(text: str) -> None:
    assert "".join(parts(text)) == text
    for part in parts(text):
        assert len(json.dumps({"type": "items", "items": [{"text": part}]})) < 1 << 16


def test_a_text_of_the_worst_signs_fits() -> None:
    text = "\U0001f9a0" * 100_000
    for part in parts(text):
        assert len(json.dumps({"type": "items", "items": [{"text": part}]})) < 1 << 16


def test_a_process_is_held_or_not_there() -> None:
    handle = open_process(os.getpid())
    assert handle is not None
    os.close(handle)
    assert open_process(1 << 22) is None
