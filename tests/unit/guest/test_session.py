"""Jobs in a real agent: streams, signals, environment."""

from __future__ import annotations

import hashlib
import os
import random
import signal
from pathlib import Path

import pytest

from mayfly.guest.framing import INITIAL_CREDIT, Kind, Stream, pack, pack_credit
from tests.unit.guest.host import Agent, Peer, alive, assert_soon, exited, sh

# --- streams ---


def test_a_job_has_three_streams_and_a_status(session: Peer) -> None:
    ended = session.run(*sh("cat; echo out; echo err >&2; exit 7"), stdin=b"in\n")
    assert ended == exited(7)
    assert session.text() == "in\nout\n"
    assert session.text(Stream.STDERR) == "err\n"
    assert sorted(session.ended) == [Stream.STDOUT, Stream.STDERR]
    assert session.messages[0]["type"] == "started"
    assert session.messages[0]["pid"] > 1


def test_streams_are_binary_clean(session: Peer) -> None:
    data = random.Random(1).randbytes(8 << 20)
    assert session.run("cat", stdin=data) == exited(0)
    assert hashlib.sha256(session.received[Stream.STDOUT]).digest() == hashlib.sha256(data).digest()


def test_standard_error_carries_much_too(session: Peer) -> None:
    assert session.run(*sh("head -c 3000000 /dev/zero >&2")) == exited(0)
    assert len(session.received[Stream.STDERR]) == 3000000


def test_without_stdin_it_is_empty(session: Peer) -> None:
    session.start(*sh("readlink /proc/self/fd/0; cat"), stdin=False)
    session.write(Stream.STDIN, b"for nobody")
    session.until(session.over)
    assert session.text() == "/dev/null\n"


def test_without_credit_agent_and_job_stand_still(agent: Agent, session: Peer) -> None:
    session.generous = False
    session.start(*sh("head -c 67108864 /dev/zero; echo done >&2"))
    session.until(lambda: len(session.received[Stream.STDOUT]) == INITIAL_CREDIT)
    before = agent.resident_kib()
    session.idle(0.3)
    assert len(session.received[Stream.STDOUT]) == INITIAL_CREDIT
    assert not session.received[Stream.STDERR]
    assert agent.resident_kib() < before + 2048
    session.raw(pack_credit(Stream.STDOUT, 1000))
    session.until(lambda: len(session.received[Stream.STDOUT]) == INITIAL_CREDIT + 1000)
    session.generous = True
    session.raw(pack_credit(Stream.STDOUT, INITIAL_CREDIT))
    session.until(session.over)
    assert len(session.received[Stream.STDOUT]) == 67108864


def test_a_job_that_never_reads_stops_the_host(session: Peer) -> None:
    session.start("sleep", "60")
    session.message("started")
    sent = 0
    while session.room[Stream.STDIN]:
        piece = bytes(session.room[Stream.STDIN])
        session.raw(pack(Kind.DATA, Stream.STDIN, piece))
        session.room[Stream.STDIN] = 0
        sent += len(piece)
        session.idle(0.2)
    assert INITIAL_CREDIT <= sent <= 2 * INITIAL_CREDIT
    session.say("signal", signal="TERM")
    session.until(session.over)
    assert session.messages[0] == {"type": "exit", "code": None, "signal": "TERM"}


def test_more_than_the_credit_ends_the_conversation(session: Peer) -> None:
    session.start("sleep", "60")
    pid = session.message("started")["pid"]
    for _ in range(40):
        session.raw(pack(Kind.DATA, Stream.STDIN, bytes(100_000)))
        session.room[Stream.STDIN] -= 100_000
    session.idle(0.1)
    assert_soon(lambda: not alive(pid))


def test_a_job_that_closes_stdin_is_known(session: Peer) -> None:
    session.start(*sh("exec <&-; echo closed; exec sleep 60"))
    session.until(lambda: Stream.STDIN in session.closed and bool(session.text()))
    session.raw(pack(Kind.DATA, Stream.STDIN, b"for nobody"))
    session.say("signal", signal="KILL")
    session.until(session.over)
    assert session.text() == "closed\n"


def test_a_job_that_closes_stdout_goes_on(session: Peer) -> None:
    session.start(*sh("echo first; exec >&-; read line; echo $line >&2; exit 3"))
    session.until(lambda: Stream.STDOUT in session.ended)
    session.write(Stream.STDIN, b"still here\n")
    session.until(session.over)
    assert session.text(Stream.STDERR) == "still here\n"
    assert session.messages[-2] == exited(3)


def test_a_host_that_wants_no_more_breaks_the_pipe(session: Peer) -> None:
    session.start(*sh("yes; echo status $? >&2"))
    session.until(lambda: len(session.received[Stream.STDOUT]) > 100_000)
    session.raw(pack(Kind.CLOSE, Stream.STDOUT))
    session.until(session.over)
    assert session.text(Stream.STDERR).startswith(f"status {128 + signal.SIGPIPE}")
    assert session.messages[-2] == exited(0)


def test_a_daemon_left_behind_does_not_hold_the_session(session: Peer) -> None:
    ended = session.run(*sh("setsid sleep 60 & echo $!; seq 10000"))
    assert ended == exited(0)
    daemon, *numbers = session.text().split()
    assert numbers == [str(number) for number in range(1, 10001)]
    assert alive(int(daemon))
    os.kill(int(daemon), signal.SIGKILL)


def test_a_daemon_that_goes_on_writing_does_not_either(session: Peer) -> None:
    assert session.run(*sh("setsid yes & echo $! >&2")) == exited(0)
    daemon = int(session.text(Stream.STDERR))
    assert_soon(lambda: not alive(daemon))


# --- signals and ends ---


@pytest.mark.parametrize("name", ["INT", "TERM", "USR1", "HUP", "QUIT"])
def test_a_signal_reaches_the_job(session: Peer, name: str) -> None:
    session.start(
        *sh(f"trap 'echo got it; exit 9' {name}; echo ready; while :; do sleep 0.02; done")
    )
    session.until(lambda: b"ready" in session.received[Stream.STDOUT])
    session.say("signal", signal=name)
    session.until(session.over)
    assert session.text() == "ready\ngot it\n"
    assert session.messages[-2] == exited(9)


def test_a_job_that_ignores_a_signal_can_be_killed(session: Peer) -> None:
    session.start(*sh("trap '' TERM; echo ready; while :; do sleep 0.02; done"))
    session.until(lambda: b"ready" in session.received[Stream.STDOUT])
    session.say("signal", signal="TERM")
    session.idle(0.1)
    assert not session.over()
    session.say("signal", signal="KILL")
    session.until(session.over)
    assert session.messages[-2] == {"type": "exit", "code": None, "signal": "KILL"}


def test_an_unnamed_signal_is_told_by_number(session: Peer) -> None:
    ended = session.run(*sh(f"kill -{signal.SIGRTMIN + 3} $$"))
    assert ended == {"type": "exit", "code": None, "signal": str(signal.SIGRTMIN + 3)}


def test_a_job_has_usual_signals_and_no_foreign_descriptors(session: Peer) -> None:
    session.run("cat", "/proc/self/status")
    lines = dict(line.split(":\t", 1) for line in session.text().splitlines() if ":\t" in line)
    assert int(lines["SigIgn"], 16) == 0
    assert int(lines["SigBlk"], 16) == 0
    session.run("ls", "/proc/self/fd")
    assert session.text().split() == ["0", "1", "2", "3"]


def test_a_job_leads_its_own_session(session: Peer) -> None:
    session.run(*sh("cut -d' ' -f1,5,6 /proc/$$/stat"))
    assert session.text().split() == [str(session.messages[0]["pid"])] * 3


# --- environment ---


def test_environment_is_what_was_said_and_the_usual(session: Peer) -> None:
    odd = {"LINES": "one\ntwo", "BYTES": "\udcff\udcfe", "HOME": "/mine"}
    session.run("env", "-0", env=odd)
    got = dict(pair.split("=", 1) for pair in session.text().rstrip("\0").split("\0"))
    assert got.pop("PATH").endswith("/bin")
    assert got == {**odd, "USER": "somebody", "LOGNAME": "somebody", "SHELL": "/bin/sh"}


def test_arguments_are_what_was_said(session: Peer) -> None:
    words = ["", "a b", "'\"", "\n", "ü", "\udc80"]
    session.run("printf", "%s\\0", *words)
    assert session.text().split("\0")[:-1] == words


def test_ten_thousand_arguments_arrive(session: Peer) -> None:
    words = [f"argument-{number}-{'x' * 50}" for number in range(10000)]
    session.run("printf", "%s\\n", *words)
    assert session.text().splitlines() == words


def test_too_long_a_command_is_told(session: Peer) -> None:
    failed = session.run("true", "x" * 200_000)
    assert failed["code"] == 126
    assert "Argument list too long" in failed["reason"]


def test_directory_umask_and_limits(session: Peer, tmp_path: Path) -> None:
    limits = {"nofile": [100, 200], "core": [0, 0], "nosuch": [1, 1], "nproc": [-1, -1]}
    script = "pwd; umask; ulimit -Sn; ulimit -Hn; ulimit -c"
    session.run(*sh(script), cwd=str(tmp_path), umask=0o27, limits=limits)
    assert session.text().split() == [str(tmp_path), "0027", "100", "200", "0"]


def test_a_limit_too_high_for_here_stays_as_it_is(session: Peer) -> None:
    assert session.run("true", limits={"nofile": [1 << 40, 1 << 40]}) == exited(0)
