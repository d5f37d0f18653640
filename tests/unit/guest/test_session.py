"""Jobs in a real agent: streams, ends, signals, terminals, failures to start."""

from __future__ import annotations

import hashlib
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mayfly.guest.framing import INITIAL_CREDIT, Kind, Stream, pack, pack_credit
from tests.unit.guest.host import Agent, Peer, alive, await_true, running_agent


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    with running_agent(tmp_path_factory.mktemp("root"), "--test-unclaimed") as agent:
        yield agent


@pytest.fixture
def session(agent: Agent) -> Iterator[Peer]:
    """Give the session port; whatever a test does, the agent keeps nothing of it."""
    agent.session.sync()
    before = agent.descriptors()
    agent.session.generous = True
    yield agent.session
    agent.session.generous = True
    agent.session.sync()
    await_true(lambda: agent.descriptors() == before)
    await_true(lambda: not agent.children())


def sh(script: str) -> tuple[str, str, str]:
    return ("sh", "-c", script)


def exited(code: int) -> dict[str, object]:
    return {"type": "exit", "code": code, "signal": None}


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
    await_true(lambda: not alive(pid))


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
    await_true(lambda: not alive(daemon))


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


# --- failures to start ---


@pytest.mark.parametrize(
    ("argv", "fields", "code", "reason"),
    [
        (("nosuch-program",), {}, 127, "nosuch-program: not found in PATH"),
        (("/nosuch/program",), {}, 127, "/nosuch/program: No such file or directory"),
        (("/etc/passwd",), {}, 126, "/etc/passwd: Permission denied"),
        (("/etc",), {}, 126, "/etc: Permission denied"),
        (("true",), {"cwd": "/nosuch"}, 125, "cannot enter /nosuch: No such file or directory"),
        (("true",), {"cwd": "relative"}, 125, "'cwd' must be an absolute path"),
        (("true",), {"root": True}, 125, "jobs may not run as root in this machine"),
        ((), {}, 125, "'argv' is empty"),
        (("a\0b",), {}, 125, "'argv' holds a zero byte"),
        (("\ud800",), {}, 125, "'argv' holds what stands for no bytes"),
        (("true",), {"env": {"A=B": "c"}}, 125, "'A=B' cannot be the name of a variable"),
        (("true",), {"env": {"A": 1}}, 125, "'env' must be text"),
        (("true",), {"umask": 512}, 125, "'umask' must be a whole number from 0 to 511"),
        (("true",), {"limits": {"core": 1}}, 125, "the limit 'core' must be a pair"),
        (("true",), {"tty": {"rows": 1}}, 125, "'cols' must be a whole number from 0 to 65535"),
    ],
)
def test_a_job_that_cannot_start_says_why(
    session: Peer, argv: tuple[str, ...], fields: dict[str, Any], code: int, reason: str
) -> None:
    failed = session.run(*argv, **fields)
    assert failed["type"] == "failed"
    assert failed["code"] == code
    assert reason in failed["reason"]
    assert not session.ended


def test_a_script_for_nobody_is_not_executable(session: Peer, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF nonsense")
    program.chmod(0o755)
    failed = session.run(str(program))
    assert (failed["code"], failed["reason"]) == (126, f"{program}: Exec format error")


def test_path_is_searched_as_a_shell_does(session: Peer, tmp_path: Path) -> None:
    for name, mode in (("first", 0o644), ("second", 0o755)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tool").write_text(f"#!/bin/sh\necho {name}\n")
        (tmp_path / name / "tool").chmod(mode)
    path = f"/nosuch:{tmp_path}/first:{tmp_path}/second"
    assert session.run("tool", env={"PATH": path}) == exited(0)
    assert session.text() == "second\n"
    failed = session.run("tool", env={"PATH": f"/nosuch:{tmp_path}/first"})
    assert failed["code"] == 126


# --- terminals ---

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


# --- conversations ---


def test_a_signal_may_come_before_the_job(session: Peer, tmp_path: Path) -> None:
    files = {"path": str(tmp_path), "in": True, "out": False}
    session.start("sleep", "60", workdir=files)
    session.say("signal", signal="TERM")
    session.idle(0.05)
    assert not session.messages
    session.write(Stream.FILES_IN, b'\x00\x00\x00\x14["e","",0,0,0,""]   ')
    session.until(session.over)
    assert session.messages[-2] == {"type": "exit", "code": None, "signal": "TERM"}


def test_a_lost_host_hangs_up_the_job(session: Peer, agent: Agent) -> None:
    session.start(*sh("trap 'exit 0' HUP; echo ready; while :; do sleep 0.02; done"))
    pid = session.message("started")["pid"]
    session.until(lambda: b"ready" in session.received[Stream.STDOUT])
    session.sync()
    await_true(lambda: not alive(pid))
    await_true(lambda: not agent.children())


def test_a_job_that_ignores_the_hang_up_is_killed(session: Peer) -> None:
    session.start(*sh("trap '' HUP; echo ready; while :; do sleep 0.02; done"))
    pid = session.message("started")["pid"]
    session.until(lambda: b"ready" in session.received[Stream.STDOUT])
    session.sync()
    assert session.run("echo", "next") == exited(0)
    assert session.text() == "next\n"
    assert alive(pid)
    await_true(lambda: not alive(pid))


def test_one_conversation_is_one_job(session: Peer) -> None:
    session.start("true")
    session.until(session.over)
    session.start("true")
    session.idle(0.1)
    assert session.messages[-1]["type"] == "bye"


@pytest.mark.parametrize(
    "nonsense",
    [
        pack(Kind.DATA, Stream.STDOUT, b"wrong way"),
        pack(Kind.EOF, 77),
        pack(Kind.MESSAGE, 0, b'{"type":"nosuch"}'),
        pack(Kind.MESSAGE, 0, b'{"type":"signal","signal":9}'),
        pack(Kind.MESSAGE, 0, b'{"type":"resize","rows":"x"}'),
        pack(Kind.MESSAGE, 0, b"{"),
        b"\xff" * 100,
    ],
)
def test_nonsense_ends_the_conversation_only(session: Peer, nonsense: bytes) -> None:
    session.start("sleep", "60")
    pid = session.message("started")["pid"]
    session.raw(nonsense)
    session.idle(0.02)
    await_true(lambda: not alive(pid))
    assert session.run("echo", "next") == exited(0)
