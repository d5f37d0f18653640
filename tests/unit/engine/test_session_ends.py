"""Ends that are not the job's own: time limits, dead and hung machines, agents that lie."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mayfly.engine.fake_agent import FakeAgent
from mayfly.engine.session import Patience, Stdio
from mayfly.guest.framing import (
    HEADER,
    INITIAL_CREDIT,
    Kind,
    Stream,
    pack,
    pack_credit,
    pack_message,
)
from mayfly.guest.tree import Entry, Type, pack_entry
from mayfly.model import Who
from tests.unit.engine.sessions import QUICK, Ran, Script, pipe, run, run_on, workdir

FILE = Entry(type=Type.FILE, path="out", mode=0o644, size=5)


def for_ever(agent: FakeAgent) -> None:
    agent.until(lambda: False)


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


def check_failure(ran: Ran, phase: str, words: str) -> None:
    assert (ran.result.code, ran.result.who, ran.result.phase) == (125, Who.MAYFLY, phase)
    assert words in ran.result.reason


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
    assert "it ended after 2 paths, at out" in ran.result.warnings[0]
    assert os.listdir(tmp_path) == ["done"]


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


# --- agents that lie -----------------------------------------------------------------------------

EXIT = pack_message({"type": "exit", "code": 0, "signal": None})
ENDS = pack(Kind.EOF, Stream.STDOUT) + pack(Kind.EOF, Stream.STDERR)
STARTED = pack_message({"type": "started", "pid": 1})


def message(**fields: Any) -> bytes:
    return pack_message(fields)


BEFORE_START = {
    "output": pack(Kind.DATA, Stream.STDOUT, b"x"),
    "exit": EXIT,
    "bye": message(type="bye"),
    "unknown message": message(type="hel\x1blo"),
    "no object": pack(Kind.MESSAGE, 0, b"[1]"),
    "no JSON": pack(Kind.MESSAGE, 0, b"{"),
    "deep JSON": pack(Kind.MESSAGE, 0, b"[" * 60_000),
    "long message": pack(Kind.MESSAGE, 1, b" " * 50_000) * 3,
    "second SYNC": pack(Kind.SYNC, 0x4D, b"")[:2] + b"YF\0\0\0\x10" + b"0" * 16,
    "unknown kind": HEADER.pack(9, 0, 0, 0),
    "filler": HEADER.pack(2, 1, 7, 0),
    "long frame": HEADER.pack(2, 1, 0, 0xFFFFFFFF),
    "short credit": HEADER.pack(4, 0, 0, 0),
    "credit from nothing": pack_credit(Stream.STDIN, 1),
    "credit overflow": pack_credit(Stream.FILES_IN, 0xFFFFFFFF),
    "credit on ours": pack_credit(Stream.STDOUT, 1),
    "close on ours": pack(Kind.CLOSE, Stream.STDERR),
    "unknown stream": pack(Kind.DATA, 9, b"x"),
    "stdin from the guest": pack(Kind.DATA, Stream.STDIN, b"x"),
    "started without pid": message(type="started"),
    "started with a strange pid": message(type="started", pid=True),
    "failed with a strange code": message(type="failed", code=1, reason="x"),
    "failed without reason": message(type="failed", code=127, reason=None),
}
IN_JOB = {
    "started twice": STARTED,
    "failed after started": message(type="failed", code=127, reason="x"),
    "exit before the output's end": EXIT,
    "output after its end": ENDS + pack(Kind.DATA, Stream.STDOUT, b"x"),
    "end twice": ENDS + ENDS,
    "files before the exit": pack(Kind.DATA, Stream.FILES_OUT, b"x"),
    "exit with nothing": ENDS + message(type="exit", code=None, signal=None),
    "exit with both": ENDS + message(type="exit", code=1, signal="KILL"),
    "exit with 256": ENDS + message(type="exit", code=256, signal=None),
    "exit with -1": ENDS + message(type="exit", code=-1, signal=None),
    "exit with a float": ENDS + message(type="exit", code=1.0, signal=None),
    "exit with text": ENDS + message(type="exit", code="0", signal=None),
    "exit by no signal": ENDS + message(type="exit", code=None, signal="NONE"),
    "exit by signal 65": ENDS + message(type="exit", code=None, signal="65"),
    "exit by a list": ENDS + message(type="exit", code=None, signal=[9]),
}
AFTER_EXIT = {
    "exit twice": EXIT,
    "started again": STARTED,
    "output": pack(Kind.DATA, Stream.STDOUT, b"x"),
    "bye before the files": message(type="bye"),
    "no entry": pack(Kind.DATA, Stream.FILES_OUT, b"\0\0\0\2{}"),
    "long entry": pack(Kind.DATA, Stream.FILES_OUT, b"\xff\xff\xff\xff"),
    "bytes after the end": pack(Kind.DATA, Stream.FILES_OUT, pack_entry(Entry(type=Type.END)))
    + pack(Kind.DATA, Stream.FILES_OUT, b"x"),
    "too many bytes": pack(Kind.DATA, Stream.FILES_OUT, bytes(1 << 20)) * 2,
}


@pytest.mark.parametrize("nonsense", BEFORE_START.values(), ids=BEFORE_START)
def test_nonsense_before_the_start(nonsense: bytes) -> None:
    def script(agent: FakeAgent) -> None:
        agent.request()
        agent.raw(nonsense)
        for_ever(agent)

    check_failure(run(script), "start", "sent nonsense")


@pytest.mark.parametrize("nonsense", IN_JOB.values(), ids=IN_JOB)
def test_nonsense_in_the_job(nonsense: bytes) -> None:
    def script(agent: FakeAgent) -> None:
        agent.start()
        agent.raw(nonsense)
        for_ever(agent)

    check_failure(run(script), "job", "sent nonsense")


@pytest.mark.parametrize("nonsense", AFTER_EXIT.values(), ids=AFTER_EXIT)
def test_nonsense_after_the_exit(nonsense: bytes, tmp_path: Path) -> None:
    def script(agent: FakeAgent) -> None:
        agent.start()
        agent.exit(0)
        agent.raw(nonsense)
        for_ever(agent)

    check_failure(run(script, workdir=workdir(tmp_path)), "copy-out", "sent nonsense")
    assert os.listdir(tmp_path) == []


def test_machine_that_cannot_send_everything(tmp_path: Path) -> None:
    def script(agent: FakeAgent) -> None:
        agent.start()
        agent.exit(0)
        agent.write(Stream.FILES_OUT, pack_entry(FILE) + b"12345" + pack_entry(FILE) + b"6")
        agent.eof(Stream.FILES_OUT)
        for_ever(agent)

    ran = run(script, workdir=workdir(tmp_path))

    check_failure(ran, "copy-out", "could not send all that the job changed")
    assert "ended after 2 paths" in ran.result.warnings[0]
    assert (tmp_path / "out").read_bytes() == b"12345"


def test_more_output_than_there_was_credit_for() -> None:
    def script(agent: FakeAgent) -> None:
        agent.start()
        agent.raw(pack(Kind.DATA, Stream.STDOUT, bytes(1 << 20)) * 2)
        for_ever(agent)

    with pipe() as (_, stdout):
        result = run_on(script, Stdio(stdout=stdout), patience=QUICK)

    assert (result.code, result.who) == (125, Who.MAYFLY)
    assert "bytes more than it had credit for" in result.reason


def test_started_before_the_files_were_taken(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(3 << 20))

    def script(agent: FakeAgent) -> None:
        agent.generous = False
        agent.request()
        agent.raw(STARTED)
        for_ever(agent)

    ran = run(script, workdir=workdir(tmp_path))
    check_failure(ran, "copy-in", "before it had the whole work directory")


def test_machine_that_cannot_take_the_files_says_why(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(3 << 20))

    def script(agent: FakeAgent) -> None:
        agent.generous = False
        agent.request()
        agent.raw(pack(Kind.CLOSE, Stream.FILES_IN))
        agent.say("failed", code=125, reason="cannot unpack: disk full")

    check_failure(run(script, workdir=workdir(tmp_path)), "copy-in", "disk full")


def test_reason_shows_no_control_characters() -> None:
    def script(agent: FakeAgent) -> None:
        agent.request()
        agent.say("\x1b]0;evil\x07" + "x" * 1000)

    reason = run(script).result.reason
    assert reason.isprintable()
    assert len(reason) < 500


frames = st.one_of(
    st.builds(
        lambda kind, stream, filler, payload: (
            HEADER.pack(kind, stream, filler, len(payload)) + payload
        ),
        st.integers(0, 7),
        st.integers(0, 6),
        st.sampled_from([0, 0, 0, 1]),
        st.one_of(st.binary(max_size=40), st.just(b"\0\0\0\1")),
    ),
    st.builds(
        lambda kind, code, signal, extra: pack(
            Kind.MESSAGE,
            0,
            json.dumps({"type": kind, "code": code, "signal": signal, "pid": 1, **extra}).encode(),
        ),
        st.sampled_from(["started", "failed", "exit", "bye", "hello"]),
        st.one_of(st.integers(-1, 300), st.none(), st.text(max_size=3), st.just(127)),
        st.one_of(st.none(), st.sampled_from(["KILL", "SIGTERM", "9", ""])),
        st.dictionaries(st.sampled_from(["reason", "x"]), st.text(max_size=5), max_size=1),
    ),
    st.sampled_from([STARTED, ENDS, EXIT, pack(Kind.EOF, Stream.FILES_OUT)]),
    st.binary(max_size=60),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(frames, max_size=12))
def test_whatever_an_agent_sends_there_is_a_result(said: list[bytes]) -> None:
    def script(agent: FakeAgent) -> None:
        agent.request()
        agent.raw(b"".join(said))

    ran = run(script, patience=Patience(sync_s=5, setup_s=5, linger_s=0.1))

    assert 0 <= ran.result.code <= 255
    assert ran.result.reason.isprintable()
