"""Ends that are not the job's own: time limits, dead and hung machines, agents that lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mayfly.engine.session.fake_agent import FakeAgent
from mayfly.engine.session.run import Stdio
from mayfly.guest.framing import (
    INITIAL_CREDIT,
    Kind,
    Stream,
    pack_credit,
)
from mayfly.guest.tree import Entry, Type, pack_entry
from mayfly.model import Who
from tests.unit.engine.sessions import (
    FILE,
    QUICK,
    Script,
    check_failure,
    for_ever,
    pipe,
    run,
    run_on,
    workdir,
)


def hang_before_sync(agent: FakeAgent) -> None:
    for_ever(agent)


def hang_before_start(agent: FakeAgent) -> None:
    agent.request()
    for_ever(agent)


def hang_in_job(agent: FakeAgent) -> None:
    agent.start()
    for_ever(agent)


def hang_after_exit(agent: FakeAgent) -> None:
    agent.start()
    agent.exit(0)
    for_ever(agent)


def hang_in_copy_back(agent: FakeAgent) -> None:
    agent.start()
    agent.exit(0)
    agent.write(Stream.FILES_OUT, pack_entry(FILE) + b"12")
    for_ever(agent)


# --- machines that hang --------------------------------------------------------------------------


def test_agent_that_never_answers() -> None:
    check_failure(run(hang_before_sync, patience=QUICK), "start", "did not answer within 0.3 s")


def test_machine_that_never_starts_the_job(tmp_path: Path) -> None:
    check_failure(run(hang_before_start, patience=QUICK), "start", "no progress")
    ran = run(hang_before_start, patience=QUICK, workdir=workdir(tmp_path))
    check_failure(ran, "copy-in", "no progress")


def test_copy_in_that_goes_slowly_on_is_no_hang(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(4 << 20))

    def script(agent: FakeAgent) -> None:
        agent.generous = False
        agent.request()
        while Stream.FILES_IN not in agent.ended:
            frame = agent.next()
            if frame.kind is Kind.DATA and frame.payload:
                agent.raw(pack_credit(Stream.FILES_IN, len(frame.payload)))
        agent.say("started", pid=1)
        agent.exit(0)
        agent.send_files()

    assert run(script, patience=QUICK, workdir=workdir(tmp_path)).result.code == 0


@pytest.mark.parametrize("script", [hang_after_exit, hang_in_copy_back])
def test_copy_back_that_hangs(tmp_path: Path, script: Script) -> None:
    ran = run(script, patience=QUICK, workdir=workdir(tmp_path))

    check_failure(ran, "copy-out", "too little progress")
    assert "the job ended with exit status 0, but then" in ran.result.reason
    assert "copied back" in ran.result.warnings[0] or "copy back" in ran.result.warnings[0]
    assert os.listdir(tmp_path) == []


def test_agent_without_files_to_send_need_not_say_bye() -> None:
    assert run(hang_after_exit, patience=QUICK).result.code == 0


# --- the time limit ------------------------------------------------------------------------------


def test_time_limit_ends_the_job() -> None:
    def script(agent: FakeAgent) -> None:
        agent.start()
        assert agent.message("signal") == {"type": "signal", "signal": "TERM"}
        agent.exit(None, "TERM")

    ran = run(script, time_limit_s=0.1)

    assert (ran.result.code, ran.result.who, ran.result.phase) == (124, Who.JOB, "job")
    assert ran.reports == ["time limit of 0.10 s reached: job ended"]


def test_job_that_ignores_term_is_killed_and_its_files_come_back(tmp_path: Path) -> None:
    def script(agent: FakeAgent) -> None:
        agent.start()
        assert agent.message("signal")["signal"] == "TERM"
        assert agent.message("signal")["signal"] == "KILL"
        agent.exit(None, "KILL")
        agent.send_files((FILE, b"12345"))

    ran = run(script, time_limit_s=0.05, grace_s=0.05, workdir=workdir(tmp_path))

    assert ran.result.code == 124
    assert (tmp_path / "out").read_bytes() == b"12345"
    assert ran.result.warnings == ()


def test_machine_that_does_not_even_kill() -> None:
    ran = run(hang_in_job, time_limit_s=0.05, grace_s=0.05, patience=QUICK)

    assert (ran.result.code, ran.result.who) == (124, Who.JOB)
    assert "did not confirm the job's end" in ran.result.reason


def test_time_limit_before_the_job_has_started() -> None:
    ran = run(hang_before_start, time_limit_s=0.05)

    assert (ran.result.code, ran.result.phase) == (124, "start")


def test_copy_back_after_the_time_limit_has_its_own_grace(tmp_path: Path) -> None:
    def script(agent: FakeAgent) -> None:
        agent.start()
        agent.message("signal")
        agent.exit(None, "TERM")
        done = Entry(type=Type.FILE, path="done", mode=0o644, size=1)
        agent.write(Stream.FILES_OUT, pack_entry(done) + b"1" + pack_entry(FILE) + b"12")
        for_ever(agent)

    ran = run(script, time_limit_s=0.05, copy_grace_s=0.2, workdir=workdir(tmp_path))

    assert (ran.result.code, ran.result.phase) == (124, "copy-out")
    assert "it ended after 2 paths, at out; there may be more" in ran.result.warnings[0]
    assert ran.result.warnings[1] == "not copied back, only a part of it came: out"
    assert os.listdir(tmp_path) == ["done"]


def test_what_came_whole_before_the_time_limit_is_not_called_missing(tmp_path: Path) -> None:
    def script(agent: FakeAgent) -> None:
        agent.start()
        agent.message("signal")
        agent.exit(None, "TERM")
        agent.write(Stream.FILES_OUT, pack_entry(FILE) + b"12345")
        for_ever(agent)

    ran = run(script, time_limit_s=0.05, copy_grace_s=0.2, workdir=workdir(tmp_path))

    assert os.listdir(tmp_path) == ["out"]
    (warning,) = ran.result.warnings
    assert "it ended after 1 paths, at out; there may be more" in warning
    assert "missing" not in warning


def test_job_that_ends_in_time_may_copy_only_until_the_grace_is_over(tmp_path: Path) -> None:
    ran = run(hang_after_exit, time_limit_s=0.1, copy_grace_s=0.1, workdir=workdir(tmp_path))

    assert (ran.result.code, ran.result.phase) == (124, "copy-out")
    assert "not enough to copy back" in ran.result.reason


def test_output_that_nobody_reads_does_not_outlast_the_time_limit() -> None:
    def script(agent: FakeAgent) -> None:
        agent.start()
        # As the real one: the exit comes only after all output, or after it was refused.
        agent.write(Stream.STDOUT, bytes(2 * INITIAL_CREDIT))
        agent.exit(None, "KILL")

    with pipe() as (_, stdout):
        result = run_on(
            script,
            Stdio(stdout=stdout),
            time_limit_s=0.05,
            grace_s=0.05,
            copy_grace_s=0.1,
            patience=QUICK,
        )

    assert result.code == 124
    assert "of the job's output was lost" in result.warnings[0]


# --- machines that end ---------------------------------------------------------------------------


def vanish_before_sync(agent: FakeAgent) -> None:
    agent.next()


def vanish_before_start(agent: FakeAgent) -> None:
    agent.request()


def vanish_in_job(agent: FakeAgent) -> None:
    agent.start()
    agent.write(Stream.STDOUT, b"last words")


def vanish_in_copy_back(agent: FakeAgent) -> None:
    agent.start()
    agent.exit(0)
    agent.write(Stream.FILES_OUT, pack_entry(FILE) + b"12")


@pytest.mark.parametrize(
    ("script", "phase"),
    [
        (vanish_before_sync, "start"),
        (vanish_before_start, "copy-in"),
        (vanish_in_job, "job"),
        (vanish_in_copy_back, "copy-out"),
    ],
)
def test_machine_that_ends_too_early(tmp_path: Path, script: Script, phase: str) -> None:
    ran = run(script, workdir=workdir(tmp_path))

    check_failure(ran, phase, "the machine ended before")
    assert os.listdir(tmp_path) == []
    assert ran.stdout == (b"last words" if phase == "job" else b"")


def test_qemu_that_ends_is_noticed_by_its_descriptor() -> None:
    def script(agent: FakeAgent) -> None:
        agent.start()
        # The port itself stays open, as if another process held it too.
        os.write(dying, b"x")
        for_ever(agent)

    with pipe() as (gone, dying):
        check_failure(run(script, gone=gone), "job", "QEMU was killed")


def test_what_a_dead_machine_sent_before_still_counts() -> None:
    def script(agent: FakeAgent) -> None:
        agent.start()
        os.write(dying, b"x")
        agent.write(Stream.STDOUT, b"done")
        agent.exit(7)

    with pipe() as (gone, dying):
        ran = run(script, gone=gone)

    assert (ran.result.code, ran.stdout) == (7, b"done")
