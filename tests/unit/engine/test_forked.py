"""Forked children: what they inherit, how they report, how they end."""

from __future__ import annotations

import os
import signal
import socket

import pytest

from mayfly.engine.forked import forked, report, wait_for_end
from mayfly.errors import Denied, Failed, Quota


def sleep_until_told(channel: socket.socket) -> None:
    report(channel)
    wait_for_end(channel)


def test_a_child_ends_with_the_block() -> None:
    with forked(sleep_until_told, name="test") as child:
        child.receive()
        os.kill(child.pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


def test_a_child_that_was_killed_is_collected() -> None:
    with forked(sleep_until_told, name="test") as child:
        child.receive()
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(Failed, match="the test process ended without a word"):
            child.receive()
    with pytest.raises(ChildProcessError):
        os.waitpid(child.pid, 0)


def test_descriptors_come_with_a_report() -> None:
    def give(channel: socket.socket) -> None:
        read, write = os.pipe()
        os.write(write, b"hello")
        report(channel, [read])

    with forked(give, name="test") as child:
        (read,) = child.receive()
        assert not os.get_inheritable(read)
        assert os.read(read, 9) == b"hello"
        os.close(read)


@pytest.mark.parametrize(
    ("raised", "kind", "hint"),
    [
        (Denied("may not", hint="ask"), Denied, "ask"),
        (Quota("\u00e4\0" * 9000, hint="\U0001f600" * 9000), Quota, "\U0001f600" * 2000),
        (FileNotFoundError(2, "No such file", "/x"), Failed, ""),
    ],
    ids=["own error", "endless error", "system's error"],
)
def test_an_error_is_raised_where_it_is_waited_for(
    raised: OSError | Denied | Quota, kind: type[Failed], hint: str
) -> None:
    def fail(_: socket.socket) -> None:
        raise raised

    with forked(fail, name="test") as child:
        with pytest.raises(kind) as caught:
            child.receive()
        assert caught.value.hint == hint


def test_a_bug_in_a_child_does_not_go_on_in_its_makers_code(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def stumble(_: socket.socket) -> None:
        raise ZeroDivisionError("a bug")

    with (
        forked(stumble, name="test") as child,
        pytest.raises(Failed, match="ended without a word"),
    ):
        child.receive()
    assert "ZeroDivisionError: a bug" in capfd.readouterr().err


def test_a_child_has_only_what_it_was_given() -> None:
    def look(channel: socket.socket) -> None:
        numbers = [int(number) for number in os.listdir("/proc/self/fd")]
        found = {number for number in numbers if os.path.exists(f"/proc/self/fd/{number}")}
        if found != {0, 1, 2, channel.fileno(), kept}:
            raise Failed(f"open: {sorted(found)}")
        if {os.readlink(f"/proc/self/fd/{number}") for number in (0, 1)} != {"/dev/null"}:
            raise Failed("standard input and output belong to the maker")
        if os.getsid(0) != os.getpid() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
            raise Failed("it hears the signals of its maker")
        report(channel)

    kept, other = os.pipe()
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with forked(look, name="test", keep=[kept]) as child:
            assert child.receive() == []
    finally:
        signal.signal(signal.SIGTERM, before)
        os.close(kept)
        os.close(other)


def test_a_child_can_become_another_program() -> None:
    def turn(_: socket.socket) -> None:
        os.execv("/bin/sleep", ["sleep", "600"])

    with forked(turn, name="test") as child:
        child.wait_exec()
        child.kill()
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


def test_a_program_that_is_not_there_is_reported() -> None:
    def turn(_: socket.socket) -> None:
        os.execv("/nowhere/program", ["program"])

    with (
        forked(turn, name="test") as child,
        pytest.raises(Failed, match="No such file or directory"),
    ):
        child.wait_exec()
