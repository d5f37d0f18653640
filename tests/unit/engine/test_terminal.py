"""The terminal of the user: raw while the job has it, restored whatever happens."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mayfly.engine.session.fake_agent import FakeAgent, playing
from mayfly.engine.session.run import Stdio, run_job
from mayfly.engine.session.terminal import Terminal, window_size
from mayfly.guest.framing import INITIAL_CREDIT, Kind, Stream, pack, pack_credit
from tests.unit.engine.sessions import QUICK, REQUEST, Script, at_the_same_time, pipe, run_on

CHILDREN = Path(__file__).with_name("children.py")
LOCAL = 3
"""Index of the local flags in what tcgetattr gives."""


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    master, slave = pty.openpty()
    resize(slave, 50, 132)
    yield master, slave
    for fd in (master, slave):
        with suppress(OSError):
            os.close(fd)


def resize(slave: int, rows: int, columns: int) -> None:
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def is_raw(slave: int) -> bool:
    return not termios.tcgetattr(slave)[LOCAL] & (termios.ICANON | termios.ECHO | termios.ISIG)


def wait_until_raw(slave: int) -> None:
    """Spin, gently: there is no event for a change of mode."""
    while not is_raw(slave):
        select.select([], [], [], 0.001)


def run_in(slave: int, script: Script, **fields: Any) -> int:
    stdio = Stdio(stdin=slave, stdout=slave, stderr=slave)
    return run_on(script, stdio, **{"tty": None, **fields}).code


def test_request_tells_size_and_kind(
    terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-mayfly")
    requests = []

    def script(agent: FakeAgent) -> None:
        requests.append(agent.start())
        agent.exit(0)

    run_in(terminal[1], script)
    run_in(terminal[1], script, env={"TERM": "dumb"})
    run_in(terminal[1], script, tty=False)

    assert requests[0]["tty"] == {"rows": 50, "cols": 132}
    assert [request["env"].get("TERM") for request in requests] == ["xterm-mayfly", "dumb", None]
    assert requests[2]["tty"] is None


def test_only_if_stdin_and_stdout_are_terminals(terminal: tuple[int, int]) -> None:
    requests = []

    def script(agent: FakeAgent) -> None:
        requests.append(agent.start()["tty"])
        agent.exit(0)

    slave = terminal[1]
    with pipe() as (source, sink):
        run_on(script, Stdio(stdin=slave, stdout=sink, stderr=slave), tty=None)
        run_on(script, Stdio(stdin=source, stdout=slave, stderr=slave), tty=None)
        # Forced, as by -t: the size of whatever is a terminal, else the usual one.
        run_on(script, Stdio(stdin=source, stdout=sink, stderr=slave), tty=True)
        run_on(script, Stdio(stdin=source, stdout=sink, stderr=sink), tty=True)

    assert requests == [None, None, {"rows": 50, "cols": 132}, {"rows": 24, "cols": 80}]


def test_raw_only_while_the_job_runs(terminal: tuple[int, int]) -> None:
    master, slave = terminal
    before = termios.tcgetattr(slave)
    modes = []

    def script(agent: FakeAgent) -> None:
        agent.request()
        modes.append(is_raw(slave))
        agent.say("started", pid=1)
        wait_until_raw(slave)
        os.write(master, b"a\x03\x1a\x04\r")
        agent.until(lambda: len(agent.received[Stream.STDIN]) == 5)
        agent.write(Stream.STDOUT, b"one\ntwo\r\n")
        assert os.read(master, 100) == b"one\ntwo\r\n"
        agent.exit(0)

    assert run_in(slave, script) == 0
    assert modes == [False]
    assert termios.tcgetattr(slave) == before


def vanish(agent: FakeAgent, slave: int) -> None:
    agent.start()
    wait_until_raw(slave)


def lie(agent: FakeAgent, slave: int) -> None:
    vanish(agent, slave)
    agent.raw(b"\xff" * 100)
    agent.until(lambda: False)


def terminate(agent: FakeAgent, slave: int) -> None:
    vanish(agent, slave)
    os.kill(os.getpid(), signal.SIGTERM)
    agent.message("signal")
    agent.exit(None, "TERM")


@pytest.mark.parametrize(("act", "code"), [(vanish, 125), (lie, 125), (terminate, 143)])
def test_restored_however_it_ends(terminal: tuple[int, int], act: Any, code: int) -> None:
    slave = terminal[1]
    before = termios.tcgetattr(slave)

    assert run_in(slave, lambda agent: act(agent, slave)) == code
    assert termios.tcgetattr(slave) == before


def test_restored_after_an_error_of_our_caller(terminal: tuple[int, int]) -> None:
    slave = terminal[1]
    before = termios.tcgetattr(slave)

    def report(_text: str) -> None:
        raise ZeroDivisionError

    def script(agent: FakeAgent) -> None:
        agent.start()
        agent.until(lambda: False)

    stdio = Stdio(stdin=slave, stdout=slave, stderr=slave)
    request = replace(REQUEST, tty=None, time_limit_s=0.1)
    with pytest.raises(ZeroDivisionError), playing(script) as port:
        run_job(port, request, stdio, machine_gone=None, report=report)
    assert termios.tcgetattr(slave) == before


def test_reports_are_made_out_of_raw_mode(terminal: tuple[int, int]) -> None:
    slave = terminal[1]
    modes = []

    def script(agent: FakeAgent) -> None:
        agent.start()
        assert agent.message("signal")["signal"] == "TERM"
        wait_until_raw(slave)
        agent.exit(0)

    stdio = Stdio(stdin=slave, stdout=slave, stderr=slave)
    request = replace(REQUEST, tty=None, time_limit_s=0.1)
    with playing(script) as port:
        run_job(
            port, request, stdio, machine_gone=None, report=lambda _: modes.append(is_raw(slave))
        )
    assert modes == [False]


def test_new_size_reaches_the_job(terminal: tuple[int, int]) -> None:
    slave = terminal[1]

    def script(agent: FakeAgent) -> None:
        agent.start()
        resize(slave, 10, 20)
        os.kill(os.getpid(), signal.SIGWINCH)
        size = agent.message("resize")
        agent.exit(0 if (size["rows"], size["cols"]) == (10, 20) else 1)

    assert run_in(slave, script) == 0


def test_three_interrupt_keys_end_a_hung_machine(terminal: tuple[int, int]) -> None:
    master, slave = terminal

    def script(agent: FakeAgent) -> None:
        agent.start()
        wait_until_raw(slave)
        for count in range(1, 4):
            os.write(master, b"\x03")
            agent.until(lambda: len(agent.received[Stream.STDIN]) == count)  # noqa: B023
        agent.until(lambda: False)

    def silent(agent: FakeAgent) -> None:
        agent.generous = False
        script(agent)

    assert run_in(slave, silent, patience=QUICK) == 130


def test_interrupt_keys_that_are_answered_are_the_jobs_own(terminal: tuple[int, int]) -> None:
    master, slave = terminal

    def script(agent: FakeAgent) -> None:
        agent.start()
        wait_until_raw(slave)
        for count in range(1, 6):
            os.write(master, b"\x03")
            agent.until(lambda: len(agent.received[Stream.STDIN]) == count)  # noqa: B023
            agent.write(Stream.STDOUT, b"^C")
            assert os.read(master, 2) == b"^C"
        agent.exit(0)

    assert run_in(slave, script) == 0


def press_and_wait(agent: FakeAgent, master: int, *keys: bytes) -> None:
    """Type, with an answer of the machine to each: it is not hung."""
    for key in keys:
        count = len(agent.received[Stream.STDIN]) + len(key)
        os.write(master, key)
        agent.until(lambda: len(agent.received[Stream.STDIN]) >= count)  # noqa: B023
        agent.write(Stream.STDOUT, b".")
        assert os.read(master, 1) == b"."


def test_three_escape_keys_end_the_run_whatever_the_machine_sends(
    terminal: tuple[int, int],
) -> None:
    master, slave = terminal

    def script(agent: FakeAgent) -> None:
        agent.start()
        wait_until_raw(slave)
        # As when a machine has the terminal answer queries between the keys.
        press_and_wait(agent, master, b"\x1d", b"\x1b[1;1R", b"a\x1db")
        os.write(master, b"\x1d")
        agent.until(lambda: False)

    assert run_in(slave, script) == 130


def test_two_escape_keys_are_the_jobs_own(terminal: tuple[int, int]) -> None:
    master, slave = terminal

    def script(agent: FakeAgent) -> None:
        agent.start()
        wait_until_raw(slave)
        press_and_wait(agent, master, b"\x1d", b"\x1d", b"\r~.")
        agent.exit(0 if agent.received[Stream.STDIN] == b"\x1d\x1d\r~." else 1)

    assert run_in(slave, script) == 0


def test_machine_that_refuses_stdin_does_not_defeat_the_escape(terminal: tuple[int, int]) -> None:
    master, slave = terminal

    def script(agent: FakeAgent) -> None:
        agent.start()
        wait_until_raw(slave)
        agent.raw(pack(Kind.CLOSE, Stream.STDIN))
        agent.write(Stream.STDOUT, b".")
        assert os.read(master, 1) == b"."
        os.write(master, b"\x1d\x1d\x1d")
        agent.until(lambda: False)

    assert run_in(slave, script) == 130


def stingy(act: Callable[[FakeAgent], None], slave: int) -> Script:
    """Make a script that gives no credit back, and goes on when it has given out all it had."""

    def script(agent: FakeAgent) -> None:
        agent.generous = False
        agent.start()
        wait_until_raw(slave)
        agent.until(lambda: len(agent.received[Stream.STDIN]) == INITIAL_CREDIT)
        act(agent)

    return script


def type_all(master: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(master, view[:4096]) :]


def wait_then_type(master: int, slave: int, data: bytes) -> None:
    wait_until_raw(slave)
    type_all(master, data)


def test_machine_without_credit_does_not_defeat_the_escape(terminal: tuple[int, int]) -> None:
    master, slave = terminal
    keys = bytes(INITIAL_CREDIT) + b"more" + b"\x1d\x1d\x1d"

    with at_the_same_time(lambda: wait_then_type(master, slave, keys)):
        code = run_in(slave, stingy(lambda agent: agent.until(lambda: False), slave))
    assert code == 130


def test_keys_wait_for_a_machine_without_credit(terminal: tuple[int, int]) -> None:
    master, slave = terminal

    def act(agent: FakeAgent) -> None:
        agent.raw(pack_credit(Stream.STDIN, 100_000))
        agent.until(lambda: len(agent.received[Stream.STDIN]) == INITIAL_CREDIT + 100_000)
        agent.exit(0 if agent.received[Stream.STDIN].endswith(b"\0more") else 1)

    keys = bytes(INITIAL_CREDIT + 100_000 - 4) + b"more"
    with at_the_same_time(lambda: wait_then_type(master, slave, keys)):
        assert run_in(slave, stingy(act, slave)) == 0


def test_more_keys_than_there_is_room_for_are_told(
    terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    master, slave = terminal
    monkeypatch.setattr("mayfly.engine.session.stdin.HELD_LIMIT", 10_000)
    keys = bytes(INITIAL_CREDIT + 12_048) + b"\x1d\x1d\x1d"

    with at_the_same_time(lambda: wait_then_type(master, slave, keys)):
        script = stingy(lambda agent: agent.until(lambda: False), slave)
        result = run_on(script, Stdio(stdin=slave, stdout=slave, stderr=slave), tty=None)
    assert result.code == 130
    assert result.warnings[0].endswith("of what was typed was lost: the job did not take it")


def test_terminal_that_hangs_up_ends_stdin(terminal: tuple[int, int]) -> None:
    master, slave = terminal

    def script(agent: FakeAgent) -> None:
        agent.start()
        wait_until_raw(slave)
        os.close(master)
        agent.until(lambda: Stream.STDIN in agent.ended)
        agent.exit(4)

    assert run_in(slave, script) == 4


def test_background_process_is_not_stopped(terminal: tuple[int, int]) -> None:
    slave = terminal[1]
    done = subprocess.run(
        [sys.executable, CHILDREN, "background", str(slave)],
        pass_fds=[slave],
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert done.stdout.strip() == b"result=7", done.stderr


def test_job_that_reads_a_cooked_terminal_gets_lines(terminal: tuple[int, int]) -> None:
    master, slave = terminal

    def script(agent: FakeAgent) -> None:
        agent.start()
        agent.until(lambda: Stream.STDIN in agent.ended)
        agent.exit(0 if agent.received[Stream.STDIN] == b"line\n" else 1)

    with at_the_same_time(lambda: os.write(master, b"line\n\x04")):
        assert run_in(slave, script, tty=False) == 0


def test_size_of_no_terminal_is_the_usual() -> None:
    with pipe() as (end, _):
        assert window_size(end) == (24, 80)


def test_what_is_no_terminal_has_no_modes() -> None:
    with pipe() as (end, _), Terminal(end) as terminal:
        terminal.enter_raw()
        assert not terminal.raw
