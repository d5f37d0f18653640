"""The control port for who has other things to do: looking whether an answer is there."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from mayfly.engine.control import Control
from mayfly.errors import Failed, Unavailable
from mayfly.guest.framing import pack_message, pack_sync
from tests.unit.engine.controls import HELLO, Guest, introduced, strange


@pytest.fixture
def both() -> Iterator[tuple[Control, Guest]]:
    with strange() as pair:
        yield pair


@pytest.fixture
def talking() -> Iterator[tuple[Control, Guest]]:
    with introduced() as pair:
        yield pair


def test_whether_an_answer_has_arrived_is_told_without_waiting(
    talking: tuple[Control, Guest],
) -> None:
    control, guest = talking
    first, second = control.send({"type": "a"}), control.send({"type": "b"})
    assert not control.arrived(first)
    text = pack_message({"type": "ok", "id": second, "of": "b"})
    guest.say({"type": "ok", "id": [1]}, {"type": "ok", "id": None}, text[:-3])
    assert not control.arrived(second)
    guest.say(text[-3:])
    assert control.arrived(second)
    assert not control.arrived(first)
    guest.say({"type": "ok", "id": first, "of": "a"})
    assert control.arrived(first)
    assert control.answer(first, "a", timeout_s=0)["of"] == "a"
    assert control.answer(second, "b", timeout_s=0)["of"] == "b"


def test_an_answer_is_found_behind_a_greeting_that_nobody_waited_for(
    both: tuple[Control, Guest],
) -> None:
    control, guest = both
    assert control.features is None
    control.begin()
    nonce = guest.nonce()
    number = control.send({"type": "sample"})
    greeting = {**HELLO, "features": ["refresh"]}
    guest.say(pack_sync(nonce), greeting, {"type": "ok", "id": number})
    assert control.arrived(number)
    assert control.features == frozenset({"refresh"})


def test_the_end_of_the_machine_arrives_too(talking: tuple[Control, Guest]) -> None:
    control, guest = talking
    number = control.send({"type": "renew"})
    guest.end_qemu()
    assert control.arrived(number)
    with pytest.raises(Failed, match="ended"):
        control.answer(number, "renew", timeout_s=1)


@pytest.mark.parametrize("noise", [pack_message({"type": "ok", "id": 9}), b"\xff" * 8])
def test_a_guest_that_floods_is_not_listened_to_without_end(
    talking: tuple[Control, Guest], noise: bytes
) -> None:
    control, guest = talking
    number = control.send({"type": "renew"})
    guest.port.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            guest.port.send(noise * 1000)
    control.arrived(number)
    with pytest.raises((Failed, Unavailable)):
        control.answer(number, "renew", timeout_s=0.05)


def test_another_process_goes_on_with_ids_of_its_own() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ids = {Control(ours, 0, begun=True).send({"type": "a"}) for _ in range(3)}
        assert len(ids) == 3
        control = Control(ours, 0, begun=True)
        number = control.send({"type": "b"})
        theirs.sendall(pack_message({"type": "ok", "id": number}))
        assert control.answer(number, "b", timeout_s=10)["type"] == "ok"
        control.close()
