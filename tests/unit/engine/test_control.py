"""The host's end of the control port, with a guest that may say anything or nothing."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.engine import control as control_module
from mayfly.engine.control import ANSWER_LIMIT, Control
from mayfly.errors import Failed, MayflyError, Unavailable
from mayfly.guest.framing import NONCE_LENGTH, Kind, pack, pack_message, pack_sync
from tests.unit.engine.controls import HELLO, Guest, introduced, strange


def guest_bytes(control: Control) -> bytes:
    """Take what the guest has written and nobody has read."""
    return os.read(control.fileno(), 1 << 20)


@pytest.fixture
def both() -> Iterator[tuple[Control, Guest]]:
    with strange() as pair:
        yield pair


@pytest.fixture
def talking() -> Iterator[tuple[Control, Guest]]:
    with introduced() as pair:
        yield pair


def greeted(control: Control, guest: Guest, *parts: bytes | dict[str, Any]) -> dict[str, Any]:
    control.begin()
    guest.say(pack_sync(guest.nonce()), *parts)
    return control.hello(timeout_s=10)


# --- greeting ------------------------------------------------------------------------------------


def test_the_greeting_is_given(both: tuple[Control, Guest]) -> None:
    assert greeted(*both, {**HELLO, "kernel": "6.1"}) == {**HELLO, "kernel": "6.1"}


def test_every_conversation_has_a_nonce_of_its_own(both: tuple[Control, Guest]) -> None:
    control, guest = both
    control.begin()
    first = guest.nonce()
    control.begin()
    assert len(first) == NONCE_LENGTH
    assert guest.nonce() != first


@pytest.mark.parametrize(
    "noise",
    [
        b"[    1.0] Linux version 6.1\r\n" * 100,
        pack_message({"type": "ok", "id": 1}),
        pack(Kind.DATA, 1, b"x" * 5000)[:-1],
        pack_sync(b"o" * NONCE_LENGTH) + pack_message({"type": "ok", "id": 1}),
        pack_sync(b"o" * NONCE_LENGTH) + pack_message(HELLO),
        pack_sync(b"o" * NONCE_LENGTH) + pack(Kind.EOF, 2),
    ],
)
def test_what_was_said_before_our_nonce_is_ignored(
    both: tuple[Control, Guest], noise: bytes
) -> None:
    control, guest = both
    control.begin()
    guest.say(noise, pack_sync(guest.nonce()), {**HELLO, "agent": "right"})
    assert control.hello(timeout_s=10)["agent"] == "right"


@pytest.mark.parametrize(("newest", "oldest"), [(1, 1), (2, 1), (3, 0)])
def test_an_agent_that_speaks_our_protocol_too(
    both: tuple[Control, Guest], newest: int, oldest: int
) -> None:
    assert greeted(*both, {**HELLO, "protocol": newest, "protocol_min": oldest})


@pytest.mark.parametrize(
    "changes",
    [
        {"protocol": 2, "protocol_min": 2},
        {"protocol": 0, "protocol_min": 0},
        {"protocol": "1"},
        {"protocol": None},
        {"protocol_min": None},
        {"protocol_min": [1]},
        {"type": "ok"},
    ],
)
def test_another_protocol_is_refused(both: tuple[Control, Guest], changes: dict[str, Any]) -> None:
    with pytest.raises(Failed, match=r"speaks protocols|greeted with"):
        greeted(*both, {**HELLO, **changes})


@pytest.mark.parametrize("other", [pack(Kind.DATA, 1, b"x"), pack(Kind.EOF, 0)])
def test_what_is_no_greeting_is_refused(both: tuple[Control, Guest], other: bytes) -> None:
    with pytest.raises(Failed, match="greeted"):
        greeted(*both, other)


def test_an_agent_that_does_not_come(both: tuple[Control, Guest]) -> None:
    control, guest = both
    control.begin()
    guest.say(b"noise", pack_sync(b"o" * NONCE_LENGTH))
    with pytest.raises(Unavailable, match="greeting"):
        control.hello(timeout_s=0.05)


def test_the_caller_is_called_while_it_waits(
    both: tuple[Control, Guest], monkeypatch: pytest.MonkeyPatch
) -> None:
    control, guest = both
    monkeypatch.setattr(control_module, "TICK_S", 0.001)
    control.begin()
    nonce = guest.nonce()
    ticks = []

    def tick() -> None:
        ticks.append(1)
        if len(ticks) == 3:
            guest.say(pack_sync(nonce), HELLO)

    assert control.hello(timeout_s=10, tick=tick) == HELLO
    assert len(ticks) >= 3


def test_what_the_caller_finds_out_meanwhile_ends_the_wait(
    both: tuple[Control, Guest], monkeypatch: pytest.MonkeyPatch
) -> None:
    def tick() -> None:
        raise Failed("its kernel panicked")

    monkeypatch.setattr(control_module, "TICK_S", 0.001)
    both[0].begin()
    with pytest.raises(Failed, match="panicked"):
        both[0].hello(timeout_s=10, tick=tick)


# --- requests ------------------------------------------------------------------------------------


def test_a_request_gets_its_answer(talking: tuple[Control, Guest]) -> None:
    control, guest = talking
    guest.say({"type": "ok", "id": 1, "settled": True})
    assert control.request({"type": "settle", "timeout_s": 5})["settled"] is True
    (frame,) = guest.heard()
    assert frame.message == {"type": "settle", "timeout_s": 5, "id": 1}


def test_only_the_answer_with_the_right_id_counts(talking: tuple[Control, Guest]) -> None:
    control, guest = talking
    first, second = control.send({"type": "a"}), control.send({"type": "b"})
    assert first != second
    guest.say({"type": "ok", "id": first, "of": "a"}, {"type": "error", "id": 77})
    guest.say({"type": "ok"}, {"type": "ok", "id": str(second)}, pack(Kind.DATA, 1, b"x"))
    guest.say({"type": "ok", "id": second, "of": "b"})
    assert control.answer(second, "b", timeout_s=10)["of"] == "b"


def test_an_error_has_the_agents_reason(talking: tuple[Control, Guest]) -> None:
    control, guest = talking
    guest.say({"type": "error", "id": 1, "reason": "no such device"})
    with pytest.raises(Failed, match="'claim': no such device"):
        control.request({"type": "claim"})


@pytest.mark.parametrize("reason", ["x" * 100_000, {"deep": ["y" * 9000]}, None])
def test_a_guest_cannot_flood_the_message(talking: tuple[Control, Guest], reason: object) -> None:
    control, guest = talking
    guest.say({"type": "error", "id": 1, "reason": reason})
    with pytest.raises(Failed, match="'claim'") as caught:
        control.request({"type": "claim"})
    assert len(caught.value.message) < 700


@pytest.mark.parametrize("kind", ["", "OK", "hello", "yes"])
def test_only_ok_is_ok(talking: tuple[Control, Guest], kind: str) -> None:
    control, guest = talking
    guest.say({"type": kind, "id": 1})
    with pytest.raises(Failed):
        control.request({"type": "renew"})


def test_an_answer_that_does_not_come(talking: tuple[Control, Guest]) -> None:
    with pytest.raises(Unavailable, match="renew"):
        talking[0].request({"type": "renew"}, timeout_s=0.05)


def test_a_guest_that_talks_without_end_cannot_lengthen_the_wait(
    talking: tuple[Control, Guest],
) -> None:
    control, guest = talking
    done = threading.Event()
    chatter = pack_message({"type": "ok", "id": 999}) * 100

    def talk() -> None:
        guest.port.settimeout(0.05)
        while not done.is_set():
            try:
                guest.port.sendall(chatter)
            except TimeoutError:
                return  # The host has stopped reading.

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        with pytest.raises((Failed, Unavailable)):
            control.request({"type": "renew"}, timeout_s=0.1)
    finally:
        done.set()
        thread.join()


def test_more_messages_than_anybody_asked_for_are_a_flood(
    talking: tuple[Control, Guest], monkeypatch: pytest.MonkeyPatch
) -> None:
    control, guest = talking
    monkeypatch.setattr(control_module, "UNASKED_MOST", 50)
    number = control.send({"type": "renew"})
    guest.say(*[{"type": "ok", "id": 999}] * 60, {"type": "ok", "id": number})
    with pytest.raises(Failed, match="messages without end"):
        control.answer(number, "renew", timeout_s=10)


def test_nonsense_ends_the_conversation_and_is_not_kept(talking: tuple[Control, Guest]) -> None:
    control, guest = talking
    for _ in range(3):
        number = control.send({"type": "renew"})
        guest.say(b"\xff" * 65_536)
        assert control.arrived(number)
        with pytest.raises(Failed, match="nonsense"):
            control.answer(number, "renew", timeout_s=10)
    # Two of the three are still where the guest's writes wait, and keep it from writing more.
    assert len(guest_bytes(control)) > 65_536


def test_another_conversation_may_begin_after_nonsense(talking: tuple[Control, Guest]) -> None:
    control, guest = talking
    guest.say(b"\xff" * 100)
    with pytest.raises(Failed, match="nonsense"):
        control.request({"type": "renew"}, timeout_s=10)
    guest.port.recv(1 << 16)
    control.begin()
    guest.say(pack_sync(guest.nonce()), HELLO)
    assert control.hello(timeout_s=10)["agent"] == HELLO["agent"]


# --- the end -------------------------------------------------------------------------------------


def test_qemu_that_ended_before_its_answer(talking: tuple[Control, Guest]) -> None:
    control, guest = talking
    guest.end_qemu()
    with pytest.raises(Failed, match=r"QEMU ended .* renew"):
        control.request({"type": "renew"})


def test_an_answer_from_before_the_end_counts(talking: tuple[Control, Guest]) -> None:
    control, guest = talking
    guest.say({"type": "ok", "id": 1})
    guest.end_qemu()
    assert control.request({"type": "quiesce"})["type"] == "ok"


def test_a_port_that_is_closed(talking: tuple[Control, Guest]) -> None:
    control, guest = talking
    number = control.send({"type": "renew"})
    guest.port.shutdown(socket.SHUT_WR)
    with pytest.raises(Failed, match="closed"):
        control.answer(number, "renew", timeout_s=10)
    guest.port.close()
    with pytest.raises(Failed, match="closed"):
        control.send({"type": "claim"})


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=4))
def test_nonsense_is_a_failure_or_silence(pieces: list[bytes]) -> None:
    ours, theirs = socket.socketpair()
    gone = os.eventfd(0)
    control = Control(ours, gone)
    control.begin()
    with theirs:
        guest = Guest(theirs, gone)
        guest.say(pack_sync(guest.nonce()), *pieces)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(MayflyError):
            control.hello(timeout_s=10)
    control.close()
    os.close(gone)


def test_a_message_that_is_too_long_is_refused(talking: tuple[Control, Guest]) -> None:
    control, guest = talking
    text = pack_message({"type": "ok", "id": 1, "text": "x" * ANSWER_LIMIT})
    thread = threading.Thread(target=guest.say, args=[text])
    thread.start()
    with pytest.raises(Failed, match="nonsense"):
        control.request({"type": "sample"})
    control.close()
    thread.join()
