"""A job in a (scripted) machine, as its user sees it: streams, status, order of events."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace

import pytest

from mayfly.engine.session.fake_agent import FakeAgent, playing
from mayfly.engine.session.run import JobRequest, Stdio, run_job
from mayfly.errors import Invalid
from mayfly.guest.framing import INITIAL_CREDIT, Kind, Stream, pack
from mayfly.model import Who
from tests.unit.engine.sessions import (
    NOT_OPEN,
    REQUEST,
    at_the_same_time,
    close,
    pipe,
    read_all,
    run,
    run_on,
)

MIB = 1 << 20


def end(agent: FakeAgent) -> None:
    agent.start()
    agent.exit(0)


def test_output_and_status_are_those_of_the_job() -> None:
    def script(agent: FakeAgent) -> None:
        agent.start()
        agent.write(Stream.STDOUT, b"out\0\xff\n")
        agent.write(Stream.STDERR, b"err\n")
        agent.exit(3)

    ran = run(script)

    assert (ran.stdout, ran.stderr) == (b"out\0\xff\n", b"err\n")
    assert (ran.result.code, ran.result.who, ran.result.phase) == (3, Who.JOB, "done")
    assert ran.result.warnings == ()


def test_signal_of_the_job_is_added_to_128() -> None:
    def script(agent: FakeAgent) -> None:
        agent.start()
        agent.exit(None, "SEGV")

    assert run(script).result.code == 139


@pytest.mark.parametrize(
    ("code", "who"), [(127, Who.JOB), (126, Who.JOB), (125, Who.MAYFLY)], ids=str
)
def test_job_that_cannot_start(code: int, who: Who) -> None:
    def script(agent: FakeAgent) -> None:
        agent.request()
        agent.say("failed", code=code, reason="nonesuch: not\x1b[31m found")

    result = run(script).result

    assert (result.code, result.who) == (code, who)
    assert "nonesuch: not\\x1b[31m found" in result.reason


def test_request_holds_what_the_job_is_to_find() -> None:
    requests = []
    started = []

    def script(agent: FakeAgent) -> None:
        requests.append(agent.start())
        agent.exit(0)

    given = replace(REQUEST, argv=("echo", "\udcff", "a\nb"), env={"A": "\udce4\n"}, root=True)
    with playing(script) as port:
        run_job(
            port,
            given,
            Stdio(),
            machine_gone=None,
            report=lambda _: None,
            started=lambda: started.append(True),
        )

    assert requests == [
        {
            "type": "start",
            "argv": ["echo", "\udcff", "a\nb"],
            "env": {"A": "\udce4\n"},
            "cwd": "/work",
            "umask": 0o022,
            "limits": {"nofile": [1024, 4096]},
            "tty": None,
            "root": True,
            "stdin": True,
            "workdir": None,
        }
    ]
    assert started == [True]


def test_command_that_is_too_long_is_refused_before_anything_starts() -> None:
    with pytest.raises(Invalid, match="too long"), playing(end) as port:
        run_job(
            port,
            replace(REQUEST, argv=("x" * (17 << 20),)),
            Stdio(),
            machine_gone=None,
            report=lambda _: None,
        )


def test_answers_to_an_older_conversation_are_dropped() -> None:
    def script(agent: FakeAgent) -> None:
        nonce = agent.next().payload
        stale = pack(Kind.DATA, 1, b"stale") + b"YF" + bytes(100)
        answer = stale + pack(Kind.SYNC, 77, b"x" * 16)[:2] + b"MYF" + stale
        agent.raw(answer)
        for byte in b"\0\x4dYF\0\0\0\x10" + nonce:
            agent.raw(bytes([byte]))
        agent.message("start")
        agent.say("started", pid=1)
        agent.write(Stream.STDOUT, b"fresh")
        agent.exit(0)

    assert run(script).stdout == b"fresh"


def test_port_is_given_back_as_it_was() -> None:
    with playing(end) as port:
        port.settimeout(7)
        run_job(port, REQUEST, Stdio(), machine_gone=None, report=lambda _: None)
        assert port.gettimeout() == 7


# --- stdout and stderr ---------------------------------------------------------------------------


def test_64_mib_come_through_unharmed() -> None:
    block = os.urandom(MIB)
    expected = hashlib.sha256(block * 64).hexdigest()

    def script(agent: FakeAgent) -> None:
        agent.start()
        for _ in range(64):
            agent.write(Stream.STDOUT, block)
        agent.exit(0)

    with pipe() as (sink, stdout):
        sums = []

        def drain() -> None:
            checksum = hashlib.sha256()
            while piece := os.read(sink, MIB):
                checksum.update(piece)
            sums.append(checksum.hexdigest())

        with at_the_same_time(drain):
            assert run_on(script, Stdio(stdout=stdout)).code == 0
            os.close(stdout)
    assert sums == [expected]


def test_both_ways_at_full_speed() -> None:
    """Both credits run out again and again, whatever is full or empty at that moment."""
    data = os.urandom(MIB) * 24

    def script(agent: FakeAgent) -> None:
        agent.start()
        done = 0
        while done < len(data):
            agent.until(lambda: len(agent.received[Stream.STDIN]) > done)  # noqa: B023
            piece = bytes(agent.received[Stream.STDIN][done:])
            agent.write(Stream.STDOUT, piece)
            done += len(piece)
        agent.exit(0)

    assert run(script, stdin=data).stdout == data


def test_blocked_stdout_holds_neither_stderr_nor_the_end() -> None:
    seen: list[bytes] = []

    def script(agent: FakeAgent) -> None:
        agent.start()
        agent.write(Stream.STDOUT, bytes(INITIAL_CREDIT))
        agent.write(Stream.STDERR, b"alive\n" * 50_000)
        agent.exit(9)

    with pipe() as (out_sink, stdout), pipe() as (err_sink, stderr):

        def read() -> None:
            # Nothing of stdout is read before the whole of stderr has come.
            while len(b"".join(seen)) < 300_000:
                seen.append(os.read(err_sink, MIB))
            assert len(read_all(out_sink)) == INITIAL_CREDIT

        with at_the_same_time(read):
            result = run_on(script, Stdio(stdout=stdout, stderr=stderr))
            os.close(stdout)
    assert result.code == 9


def test_slow_reader_slows_the_job_down() -> None:
    """Credit comes back only for what was written: so much and no more waits here."""
    sent = [0]

    def script(agent: FakeAgent) -> None:
        agent.start()
        for _ in range(64):
            agent.write(Stream.STDOUT, bytes(64 << 10))
            sent[0] += 64 << 10
        agent.exit(0)

    with pipe() as (sink, stdout):

        def read() -> None:
            total = 0
            while piece := os.read(sink, 8192):
                total += len(piece)
                assert sent[0] - total <= 2 * INITIAL_CREDIT
            assert total == 4 * MIB

        with at_the_same_time(read):
            run_on(script, Stdio(stdout=stdout))
            os.close(stdout)


def test_two_gib_into_a_closed_pipe_end_quickly() -> None:
    written = [0]

    def script(agent: FakeAgent) -> None:
        agent.start()
        block = bytes(MIB)
        while written[0] < 2048 and agent.write(Stream.STDOUT, block):
            written[0] += 1
        agent.exit(None, "PIPE")

    with pipe() as (sink, stdout):
        close(sink)
        result = run_on(script, Stdio(stdout=stdout))

    assert result.code == 141
    assert written[0] < 8


def test_closed_stdout_is_like_dev_null() -> None:
    def script(agent: FakeAgent) -> None:
        agent.start()
        assert agent.write(Stream.STDOUT, bytes(3 * MIB))
        agent.exit(0)

    assert run_on(script, Stdio(stdout=NOT_OPEN)).code == 0


def test_full_disk_closes_the_stream_and_is_told() -> None:
    def script(agent: FakeAgent) -> None:
        agent.start()
        agent.write(Stream.STDOUT, b"x")
        agent.until(lambda: Stream.STDOUT in agent.closed)
        agent.exit(1)

    full = os.open("/dev/full", os.O_WRONLY)
    result = run_on(script, Stdio(stdout=full))
    os.close(full)

    assert result.code == 1
    assert result.warnings == ("cannot write to standard output: No space left on device",)


def test_one_pipe_for_both_streams() -> None:
    def script(agent: FakeAgent) -> None:
        agent.start()
        agent.write(Stream.STDOUT, b"a" * 200_000)
        agent.write(Stream.STDERR, b"b" * 200_000)
        agent.exit(0)

    with pipe() as (sink, both):
        texts = []
        with at_the_same_time(lambda: texts.append(read_all(sink))):
            run_on(script, Stdio(stdout=both, stderr=both))
            os.close(both)
        assert (texts[0].count(b"a"), texts[0].count(b"b")) == (200_000, 200_000)


def test_stdout_is_appended_where_the_file_stands() -> None:
    """A second opening of a file would begin at its start, over what the shell wrote before."""
    fd = os.memfd_create("stdout")
    os.write(fd, b"before\n")

    def script(agent: FakeAgent) -> None:
        agent.start()
        agent.write(Stream.STDOUT, b"job\n")
        agent.exit(0)

    run_on(script, Stdio(stdout=fd))
    os.write(fd, b"after\n")

    assert os.pread(fd, 100, 0) == b"before\njob\nafter\n"
    os.close(fd)


def test_no_descriptor_is_left_open() -> None:
    before = os.listdir("/proc/self/fd")
    run(end, stdin=b"x")
    assert os.listdir("/proc/self/fd") == before


def test_request_is_a_value() -> None:
    assert replace(REQUEST) == REQUEST
    assert JobRequest.__dataclass_params__.frozen  # type: ignore[attr-defined]  # not in typeshed
