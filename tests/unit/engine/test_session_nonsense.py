"""Agents that lie: whatever a machine says, there is a result, and it says whose fault it was."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mayfly.engine.session.fake_agent import FakeAgent
from mayfly.engine.session.run import Patience, Stdio
from mayfly.guest.framing import (
    HEADER,
    Kind,
    Stream,
    pack,
    pack_credit,
    pack_message,
)
from mayfly.guest.tree import Entry, Type, pack_entry
from mayfly.model import Who
from tests.unit.engine.sessions import (
    FILE,
    QUICK,
    check_failure,
    for_ever,
    pipe,
    run,
    run_on,
    workdir,
)

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
