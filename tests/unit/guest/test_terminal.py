"""Jobs on a terminal."""

from __future__ import annotations

import os
import signal

import pytest

from mayfly.guest.framing import Kind, Stream, pack
from tests.unit.guest.host import Peer, exited, sh

SIZE = {"rows": 33, "cols": 99}


def test_a_terminal_has_a_size_and_one_stream(session: Peer) -> None:
    session.start(*sh("stty size; tty; echo err >&2; ps -o tty= -p $$"), tty=SIZE)
    session.until(session.over)
    size, name, err, _ = session.text().replace("\r", "").splitlines()
    assert size == "33 99"
    assert name.startswith("/dev/pts/")
    assert err == "err"
    assert not session.received[Stream.STDERR]
    assert session.ended == [Stream.STDERR, Stream.STDOUT]


def test_a_terminal_is_resized(session: Peer) -> None:
    script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.02; done"
    session.start(*sh(script), tty=SIZE)
    session.until(lambda: b"ready" in session.received[Stream.STDOUT])
    session.say("resize", rows=50, cols=120)
    session.until(session.over)
    assert session.text().split() == ["ready", "50", "120"]


def test_control_c_interrupts_the_foreground(session: Peer) -> None:
    script = "trap 'echo caught; exit 4' INT; echo ready; while :; do sleep 0.02; done"
    session.start(*sh(script), tty=SIZE)
    session.until(lambda: b"ready" in session.received[Stream.STDOUT])
    session.write(Stream.STDIN, b"\x03")
    session.until(session.over)
    assert "caught" in session.text()
    assert session.messages[-2] == exited(4)


def test_a_signal_reaches_the_foreground_of_a_terminal(session: Peer) -> None:
    session.start("bash", "-mc", "echo ready; sleep 60; echo slept $?", tty=SIZE)
    session.until(lambda: b"ready" in session.received[Stream.STDOUT])
    session.say("signal", signal="TERM")
    session.until(session.over)
    assert session.messages[-2] == {"type": "exit", "code": None, "signal": "TERM"}


@pytest.mark.parametrize("text", [b"one\ntwo\n", b"one\ntwo"])
def test_the_end_of_stdin_is_seen_on_a_terminal(session: Peer, text: bytes) -> None:
    session.start(*sh("stty -echo; echo ready; cat"), tty=SIZE)
    session.until(lambda: b"ready" in session.received[Stream.STDOUT])
    session.write(Stream.STDIN, text)
    session.end(Stream.STDIN)
    session.until(session.over)
    assert session.text().split() == ["ready", "one", "two"]
    assert session.messages[-2] == exited(0)


def test_a_terminal_that_is_closed_hangs_up(session: Peer) -> None:
    session.start("sleep", "60", tty=SIZE)
    session.message("started")
    session.raw(pack(Kind.CLOSE, Stream.STDOUT))
    session.until(session.over)
    assert session.messages[-2] == {"type": "exit", "code": None, "signal": "HUP"}


def test_a_daemon_on_a_terminal_does_not_hold_the_session(session: Peer) -> None:
    script = "trap '' HUP; sleep 60 & echo $!; seq 2000"
    session.start(*sh(script), tty=SIZE)
    session.until(session.over)
    daemon, *numbers = session.text().split()
    assert len(numbers) == 2000
    os.kill(int(daemon), signal.SIGKILL)


def test_much_output_of_a_terminal_is_complete(session: Peer) -> None:
    session.start("seq", "100000", tty=SIZE)
    session.until(session.over)
    assert session.text().split() == [str(number) for number in range(1, 100001)]
