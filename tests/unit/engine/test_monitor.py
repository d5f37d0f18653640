"""Talking to QEMU's monitor, which may be slow, silent, gone, or no QEMU at all."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from mayfly.engine import monitor as monitor_module
from mayfly.engine.monitor import Monitor
from mayfly.errors import Failed, Unavailable

GREETING: dict[str, Any] = {"QMP": {"version": {}, "capabilities": []}}
STOP = {"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 2}}


@dataclass
class Peer:
    """The other end: what it says is said before it is asked, for the socket keeps it."""

    socket: socket.socket
    answered: int = 0

    def say(self, *messages: object) -> None:
        self.socket.sendall(b"".join(json.dumps(item).encode() + b"\r\n" for item in messages))

    def answer(self, result: object) -> dict[str, Any]:
        """Answer the next command, as QEMU does: with the id that the command had."""
        self.answered += 1
        return {"return": result, "id": self.answered}

    def refuse(self, text: str) -> dict[str, Any]:
        self.answered += 1
        return {"error": {"class": "GenericError", "desc": text}, "id": self.answered}

    def heard(self) -> list[dict[str, Any]]:
        """Give the commands that have come."""
        data = self.socket.recv(1 << 20, socket.MSG_DONTWAIT)
        return [json.loads(line) for line in data.splitlines()]


@pytest.fixture
def pair() -> Iterator[tuple[Monitor, Peer]]:
    ours, theirs = socket.socketpair()
    with Monitor(ours, timeout_s=10) as monitor, theirs:
        yield monitor, Peer(theirs)


@pytest.fixture
def hasty() -> Iterator[tuple[Monitor, Peer]]:
    """The same with a monitor that does not wait long."""
    ours, theirs = socket.socketpair()
    with Monitor(ours, timeout_s=0.3) as monitor, theirs:
        yield monitor, Peer(theirs)


# --- commands ------------------------------------------------------------------------------------


def test_the_greeting_is_answered_by_leaving_the_capabilities_mode(
    pair: tuple[Monitor, Peer],
) -> None:
    monitor, peer = pair
    peer.say(GREETING, peer.answer({}))
    monitor.negotiate()
    assert [command["execute"] for command in peer.heard()] == ["qmp_capabilities"]


def test_what_greets_otherwise_is_no_qemu(pair: tuple[Monitor, Peer]) -> None:
    monitor, peer = pair
    peer.say({"hello": "I am a web server"})
    with pytest.raises(Failed, match="web server"):
        monitor.negotiate()


def test_a_command_gives_what_it_returned(pair: tuple[Monitor, Peer]) -> None:
    monitor, peer = pair
    peer.say(peer.answer({"running": True}), peer.answer([]))
    assert monitor.call("query-status") == {"running": True}
    assert monitor.call("device_add", {"id": "x", "on": None}) == []
    first, second = peer.heard()
    assert (first["execute"], "arguments" in first) == ("query-status", False)
    assert second["arguments"] == {"id": "x", "on": None}


def test_a_refusal_says_what_was_refused_and_why(pair: tuple[Monitor, Peer]) -> None:
    monitor, peer = pair
    peer.say(peer.refuse("Device 'x' not found"), peer.answer(1))
    with pytest.raises(Failed, match=r"'device_del'.*Device 'x' not found"):
        monitor.call("device_del", {"id": "x"})
    assert monitor.call("next") == 1


def test_answers_belong_to_commands_in_order(pair: tuple[Monitor, Peer]) -> None:
    monitor, peer = pair
    for name in ("one", "two", "three"):
        monitor.send(name)
    peer.say(peer.answer(1), STOP, peer.refuse("no"), peer.answer(3))
    assert monitor.reply("one") == 1
    with pytest.raises(Failed, match="'two': no"):
        monitor.reply("two")
    assert monitor.reply("three") == 3


def test_a_late_answer_is_not_taken_for_that_of_the_next_command(
    hasty: tuple[Monitor, Peer],
) -> None:
    monitor, peer = hasty
    with pytest.raises(Unavailable):
        monitor.call("slow")
    peer.say(peer.answer("late"), peer.answer("right"))
    assert monitor.call("quick") == "right"


def test_descriptors_travel_with_a_command(pair: tuple[Monitor, Peer]) -> None:
    monitor, peer = pair
    read, write = os.pipe()
    peer.say(peer.answer({}))
    monitor.call("getfd", {"fdname": "state"}, fds=[write])
    os.close(write)
    data, fds, _, _ = socket.recv_fds(peer.socket, 4096, 4)
    assert json.loads(data)["arguments"] == {"fdname": "state"}
    assert len(fds) == 1
    os.write(fds[0], b"abc")
    os.close(fds[0])
    assert os.read(read, 10) == b"abc"
    os.close(read)


def test_a_qemu_that_talks_without_end_is_given_up(
    pair: tuple[Monitor, Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor, peer = pair
    monkeypatch.setattr(monitor_module, "UNREAD_MOST", 50)
    peer.say(*[STOP] * 40)
    assert len(monitor.events()) == 40
    peer.say(*[{"return": {}}] * 60)
    with pytest.raises(Failed, match="without end"):
        monitor.events()


def test_a_look_reads_so_much_and_no_more(
    pair: tuple[Monitor, Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor, peer = pair
    monkeypatch.setattr(monitor_module, "READS_AT_ONCE", 1)
    peer.say(*[STOP] * 1000)
    first = len(monitor.events())
    assert 0 < first < 1000
    assert first + len(monitor.events()) == 1000


def test_whether_an_answer_has_arrived_is_told_without_waiting(pair: tuple[Monitor, Peer]) -> None:
    monitor, peer = pair
    monitor.send("stop")
    monitor.send("query-status")
    peer.say(STOP)
    assert not monitor.arrived()
    peer.say(peer.answer(1), event("RESUME"))
    peer.socket.sendall(b'{"return"')
    assert monitor.arrived()
    assert monitor.reply("stop") == 1
    assert not monitor.arrived()
    peer.socket.sendall(b': 2, "id": 2}\n')
    assert monitor.arrived()
    assert monitor.reply("query-status") == 2
    assert [item["event"] for item in monitor.events()] == ["STOP", "RESUME"]


def test_a_look_at_events_does_not_lose_an_answer(pair: tuple[Monitor, Peer]) -> None:
    monitor, peer = pair
    monitor.send("stop")
    peer.say(STOP, peer.answer("done"))
    assert [item["event"] for item in monitor.events()] == ["STOP"]
    assert monitor.arrived()
    assert monitor.reply("stop") == "done"


def test_the_answer_to_a_command_that_was_given_up_is_passed_over(
    pair: tuple[Monitor, Peer],
) -> None:
    monitor, peer = pair
    monitor.send("slow")
    monitor.give_up()
    monitor.send("quick")
    peer.say(peer.answer("late"))
    assert not monitor.arrived()
    peer.say(peer.answer("right"))
    assert monitor.arrived()
    assert monitor.reply("quick") == "right"


@pytest.mark.parametrize("last", [b"", b"nonsense\n"])
def test_the_end_of_qemu_arrives_too(pair: tuple[Monitor, Peer], last: bytes) -> None:
    monitor, peer = pair
    monitor.send("stop")
    peer.socket.sendall(last)
    peer.socket.shutdown(socket.SHUT_WR)
    assert monitor.arrived()
    with pytest.raises(Failed, match=r"ended|monitor sent"):
        monitor.reply("stop")


# --- events --------------------------------------------------------------------------------------


def event(name: str, **data: object) -> dict[str, object]:
    return {"event": name, "data": data}


def test_events_between_answers_are_kept(pair: tuple[Monitor, Peer]) -> None:
    monitor, peer = pair
    peer.say(STOP, event("RESUME"), peer.answer(5), event("SHUTDOWN", reason="guest-reset"))
    assert monitor.call("x") == 5
    assert [item["event"] for item in monitor.events()] == ["STOP", "RESUME", "SHUTDOWN"]
    assert monitor.events() == []


def test_waiting_for_an_event_gives_its_data(pair: tuple[Monitor, Peer]) -> None:
    monitor, peer = pair
    peer.say(STOP, event("MIGRATION", status="setup"), event("MIGRATION", status="completed"))
    peer.say(event("RESUME"))
    wanted = ("completed", "failed")
    data = monitor.wait_event("MIGRATION", timeout_s=10, field="status", among=wanted)
    assert data == {"status": "completed"}
    assert monitor.wait_event("RESUME", timeout_s=10) == {}


def test_an_event_that_came_during_a_command_is_waited_for_no_more(
    pair: tuple[Monitor, Peer],
) -> None:
    monitor, peer = pair
    peer.say(STOP, peer.answer(None))
    monitor.call("stop")
    assert monitor.wait_event("STOP", timeout_s=0) == {}


def test_an_event_that_does_not_come(pair: tuple[Monitor, Peer]) -> None:
    monitor, peer = pair
    peer.say(event("MIGRATION", status="active"))
    with pytest.raises(Unavailable):
        monitor.wait_event("MIGRATION", timeout_s=0.05, field="status", among=["completed"])


def test_half_an_event_is_not_waited_for(pair: tuple[Monitor, Peer]) -> None:
    monitor, peer = pair
    peer.say(STOP)
    peer.socket.sendall(b'{"event": "RES')
    begin = time.monotonic()
    assert [item["event"] for item in monitor.events()] == ["STOP"]
    assert monitor.events() == []
    assert time.monotonic() - begin < 5
    peer.socket.sendall(b'UME"}\n')
    assert [item["event"] for item in monitor.events()] == ["RESUME"]


def test_events_before_the_end_come_before_the_news_of_it(pair: tuple[Monitor, Peer]) -> None:
    monitor, peer = pair
    peer.say(event("SHUTDOWN", reason="host-signal"))
    peer.socket.close()
    assert [item["event"] for item in monitor.events()] == ["SHUTDOWN"]
    with pytest.raises(Failed):
        monitor.events()


def test_the_descriptor_tells_when_there_is_something(pair: tuple[Monitor, Peer]) -> None:
    monitor, peer = pair
    assert monitor.fileno() == monitor._socket.fileno()
    peer.say(STOP)
    assert monitor.events()


# --- trouble -------------------------------------------------------------------------------------


def test_a_peer_that_is_gone(pair: tuple[Monitor, Peer]) -> None:
    monitor, peer = pair
    peer.socket.close()
    with pytest.raises(Failed, match=r"'cont'|ended"):
        monitor.call("cont")
    with pytest.raises(Failed):
        monitor.wait_event("STOP", timeout_s=10)
    with pytest.raises(Failed):
        monitor.events()


def test_a_peer_that_goes_in_the_middle_of_an_answer(pair: tuple[Monitor, Peer]) -> None:
    monitor, peer = pair
    peer.socket.sendall(b'{"return": ')
    peer.socket.shutdown(socket.SHUT_WR)
    with pytest.raises(Failed, match="ended"):
        monitor.call("cont")


def test_a_peer_that_says_nothing(hasty: tuple[Monitor, Peer]) -> None:
    monitor, _ = hasty
    with pytest.raises(Unavailable, match="in time"):
        monitor.negotiate()


def test_events_do_not_lengthen_the_wait_for_an_answer(hasty: tuple[Monitor, Peer]) -> None:
    monitor, peer = hasty
    done = threading.Event()

    def chatter() -> None:
        while not done.wait(0.01):
            peer.say(STOP)

    thread = threading.Thread(target=chatter)
    thread.start()
    try:
        with pytest.raises(Unavailable):
            monitor.call("cont")
    finally:
        done.set()
        thread.join()


def test_a_slow_peer_is_understood(pair: tuple[Monitor, Peer]) -> None:
    monitor, peer = pair
    text = json.dumps(peer.answer({"word": "\u00e9" * 40})).encode() + b"\n"

    def dribble() -> None:
        for at in range(len(text)):
            peer.socket.sendall(text[at : at + 1])

    thread = threading.Thread(target=dribble)
    thread.start()
    assert monitor.call("x") == {"word": "\u00e9" * 40}
    thread.join()


@pytest.mark.parametrize(
    "line",
    [
        b"HTTP/1.1 400",
        b"",
        b"[]",
        b"17",
        b'"x"',
        b"null",
        b"\xff\xfe",
        b'{"return": {}',
        b"[" * 100_000,
        b'{"error": "no", "id": 1}',
        b'{"event": "STOP", "data": 5}',
    ],
)
def test_nonsense_is_a_failure(pair: tuple[Monitor, Peer], line: bytes) -> None:
    monitor, peer = pair
    peer.socket.sendall(line + b"\n")
    with pytest.raises(Failed, match="monitor sent"):
        monitor.call("x")


def test_an_endless_line_is_a_failure(
    pair: tuple[Monitor, Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor, peer = pair
    monkeypatch.setattr(monitor_module, "LINE_LIMIT", 1 << 16)
    peer.socket.sendall(b" " * ((1 << 16) + 1))
    with pytest.raises(Failed, match="endless"):
        monitor.call("x")


def test_a_long_answer_is_read_whole(pair: tuple[Monitor, Peer]) -> None:
    monitor, peer = pair
    text = "x" * (4 << 20)
    thread = threading.Thread(target=peer.say, args=[peer.answer(text)])
    thread.start()
    assert monitor.call("ringbuf-read") == text
    thread.join()
