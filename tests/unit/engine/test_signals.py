"""Signals to ``mayfly run`` reach the job; three times Ctrl-C lets go of a machine."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from mayfly.engine.session.fake_agent import FakeAgent
from mayfly.engine.session.run import Patience, Stdio
from mayfly.engine.session.signals import FORWARDED, Insistence, parse_name, short_name
from mayfly.guest.framing import INITIAL_CREDIT, Stream
from mayfly.guest.tree import Entry, Type, pack_entry
from mayfly.model import Who
from tests.unit.engine.sessions import QUICK, pipe, run, run_on, workdir

CHILDREN = Path(__file__).with_name("children.py")


def ourselves(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", FORWARDED, ids=lambda number: str(number.name))
def test_signal_goes_to_the_job(number: signal.Signals) -> None:
    def script(agent: FakeAgent) -> None:
        agent.run()
        ourselves(number)
        agent.exit(0 if agent.message("signal")["signal"] == short_name(number) else 1)

    assert run(script).result.code == 0


def test_handlers_and_wakeup_are_as_before() -> None:
    def handler(_number: int, _frame: object) -> None:
        return

    def script(agent: FakeAgent) -> None:
        agent.run()
        agent.exit(0)

    with pipe() as (_, wakeup), handling(signal.SIGUSR1, handler):
        os.set_blocking(wakeup, False)
        signal.set_wakeup_fd(wakeup)
        run(script)
        assert signal.set_wakeup_fd(-1) == wakeup
        assert signal.getsignal(signal.SIGUSR1) is handler
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@contextmanager
def handling(number: signal.Signals, handler: object) -> Iterator[None]:
    before = signal.signal(number, handler)  # type: ignore[arg-type]  # a constant or a function
    try:
        yield
    finally:
        signal.signal(number, before)


def test_signal_that_the_parent_had_ignored_stays_ignored() -> None:
    def script(agent: FakeAgent) -> None:
        agent.run()
        ourselves(signal.SIGHUP)
        ourselves(signal.SIGUSR2)
        agent.exit(0 if agent.message("signal")["signal"] == "USR2" else 1)

    with handling(signal.SIGHUP, signal.SIG_IGN):
        assert run(script).result.code == 0


def test_third_interrupt_ends_the_run_at_once() -> None:
    def script(agent: FakeAgent) -> None:
        agent.run()
        for _ in range(2):
            ourselves(signal.SIGINT)
            assert agent.message("signal")["signal"] == "INT"
        ourselves(signal.SIGINT)
        agent.until(lambda: False)

    result = run(script).result

    assert (result.code, result.who, result.phase) == (130, Who.JOB, "job")
    assert "three times" in result.reason


def test_three_interrupts_end_it_although_nobody_reads_the_output() -> None:
    def script(agent: FakeAgent) -> None:
        agent.run()
        agent.write(Stream.STDOUT, bytes(INITIAL_CREDIT))
        for _ in range(2):
            ourselves(signal.SIGINT)
            agent.message("signal")
        ourselves(signal.SIGINT)
        agent.until(lambda: False)

    with pipe() as (_, stdout):
        assert run_on(script, Stdio(stdout=stdout)).code == 130


def test_insistence_is_three_within_two_seconds() -> None:
    insistence = Insistence()
    assert [insistence.again(now) for now in (0.0, 1.0, 2.5, 2.9, 3.1)] == [
        False,
        False,
        False,
        True,
        True,
    ]


def insist(agent: FakeAgent, *numbers: signal.Signals) -> None:
    for number in numbers:
        ourselves(number)
        assert agent.message("signal")["signal"] == short_name(number)


@pytest.mark.parametrize(
    ("numbers", "code"),
    [([signal.SIGHUP], 129), ([signal.SIGTERM, signal.SIGTERM], 143)],
    ids=["SIGHUP", "SIGTERM twice"],
)
def test_signals_that_end_a_run_whose_job_goes_on(numbers: list[signal.Signals], code: int) -> None:
    def script(agent: FakeAgent) -> None:
        agent.run()
        insist(agent, *numbers)
        # A machine that is alive and busy is no reason to wait for it.
        while agent.write(Stream.STDOUT, b"x"):
            pass

    result = run(script, patience=QUICK).result

    assert (result.code, result.who, result.phase) == (code, Who.JOB, "job")
    assert result.reason == f"{numbers[0].name} came, and the job did not end within 0.4 s"


def test_signal_again_and_again_does_not_prolong_the_wait() -> None:
    def script(agent: FakeAgent) -> None:
        agent.run()
        while True:
            insist(agent, signal.SIGHUP)

    # The last one may come when the run is over, and must not end the tests.
    with handling(signal.SIGHUP, lambda *_: None):
        assert run(script, patience=QUICK).result.code == 129


def test_job_that_ends_after_the_signal_has_its_own_end() -> None:
    def script(agent: FakeAgent) -> None:
        agent.run()
        insist(agent, signal.SIGHUP, signal.SIGTERM, signal.SIGTERM)
        agent.exit(3)

    assert run(script).result.code == 3


def test_job_may_ignore_one_request_to_end() -> None:
    def script(agent: FakeAgent) -> None:
        agent.run()
        insist(agent, signal.SIGTERM)
        # The time limit, long after one SIGTERM more would have ended it.
        agent.message("signal")
        agent.exit(0)

    ran = run(script, time_limit_s=0.4, patience=replace(QUICK, kill_s=0.05))
    assert (ran.result.code, ran.result.phase) == (124, "job")


def test_output_that_nobody_reads_does_not_hold_a_run_that_was_hung_up() -> None:
    def script(agent: FakeAgent) -> None:
        agent.run()
        agent.write(Stream.STDOUT, bytes(INITIAL_CREDIT))
        insist(agent, signal.SIGHUP)
        agent.exit(3)
        agent.until(lambda: False)

    with pipe() as (_, stdout):
        result = run_on(script, Stdio(stdout=stdout), patience=Patience(kill_s=1))

    assert result.code == 3
    assert "was lost" in result.warnings[0]


def test_copy_back_goes_on_after_the_terminal_has_gone(tmp_path: Path) -> None:
    def script(agent: FakeAgent) -> None:
        agent.run()
        insist(agent, signal.SIGHUP)
        agent.exit(3)
        for number in range(60):
            # Together they take longer than the wait for the job.
            agent.write(Stream.FILES_OUT, pack_entry(Entry(type=Type.DIRECTORY, path=f"d{number}")))
            select.select([], [], [], 0.02)
        agent.send_files()

    result = run(script, workdir=workdir(tmp_path), patience=Patience(kill_s=1)).result

    assert result.code == 3
    assert len(os.listdir(tmp_path)) == 60


def test_interrupt_before_the_job_has_started() -> None:
    def script(agent: FakeAgent) -> None:
        agent.request()
        ourselves(signal.SIGTERM)
        agent.until(lambda: False)

    result = run(script).result

    assert (result.code, result.who, result.phase) == (143, Who.JOB, "start")


def end_job(agent: FakeAgent) -> None:
    """End the job, and wait until the host knows: it then takes files."""
    agent.exit(5)
    agent.write(Stream.FILES_OUT, pack_entry(Entry(type=Type.FILE, path="big", size=1 << 20)))
    agent.write(Stream.FILES_OUT, bytes(1 << 20))
    agent.until(lambda: agent.room[Stream.FILES_OUT] > INITIAL_CREDIT // 2)


def test_signals_in_the_copy_back(tmp_path: Path) -> None:
    def script(agent: FakeAgent) -> None:
        agent.start()
        end_job(agent)
        # One Ctrl-C too many is forgiven here, a request to end is not.
        ourselves(signal.SIGINT)
        ourselves(signal.SIGTERM)
        agent.until(lambda: False)

    result = run(script, workdir=workdir(tmp_path)).result

    assert (result.code, result.phase) == (143, "copy-out")
    assert "the copy back of the work directory is not complete" in result.warnings[0]


def test_signal_after_the_job_lets_go_of_output_that_nobody_reads(tmp_path: Path) -> None:
    def script(agent: FakeAgent) -> None:
        agent.start()
        agent.write(Stream.STDOUT, bytes(INITIAL_CREDIT))
        end_job(agent)
        agent.send_files()
        ourselves(signal.SIGTERM)
        agent.until(lambda: False)

    with pipe() as (_, stdout):
        result = run_on(script, Stdio(stdout=stdout), workdir=workdir(tmp_path))

    # Which of the two it is depends on whether the last entry came before the signal.
    assert result.code in {5, 143}
    assert any("was lost" in warning for warning in result.warnings)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("KILL", 9),
        ("SIGTERM", 15),
        ("RTMIN+3", 37),
        ("SIGRTMIN", 34),
        ("64", 64),
        ("65", None),
        ("0", None),
        ("", None),
        ("RTMIN+40", None),
        ("RTMIN+", None),
        ("\u0663", None),
        ("_DFL", None),
        ("KILL\0", None),
    ],
)
def test_names_of_signals(name: str, number: int | None) -> None:
    assert parse_name(name) == number


def test_stop_and_continue_take_the_job_along() -> None:
    child = subprocess.Popen(
        [sys.executable, CHILDREN, "stopped"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        process_group=0,
    )
    with child:
        _, status = os.waitpid(child.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), status
        child.send_signal(signal.SIGCONT)
        out, _ = child.communicate(timeout=20)

    assert out.split() == [b"STOP", b"CONT", b"result=0"]
