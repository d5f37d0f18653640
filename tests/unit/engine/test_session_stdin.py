"""Standard input of a job in a (scripted) machine."""

from __future__ import annotations

import os
import socket

from mayfly.engine.session.fake_agent import FakeAgent
from mayfly.engine.session.run import Stdio
from mayfly.guest.framing import INITIAL_CREDIT, Kind, Stream, pack
from tests.unit.engine.sessions import NOT_OPEN, at_the_same_time, pipe, read_all, run, run_on

MIB = 1 << 20


def echo(agent: FakeAgent) -> None:
    agent.start()
    agent.until(lambda: Stream.STDIN in agent.ended)
    agent.write(Stream.STDOUT, bytes(agent.received[Stream.STDIN]))
    agent.exit(0)


def test_stdin_from_a_file_arrives_whole() -> None:
    data = os.urandom(5 * MIB + 17)

    assert run(echo, stdin=data).stdout == data


def test_stdin_from_a_pipe_and_from_a_socket() -> None:
    data = os.urandom(3 * MIB)
    with pipe() as (source, feeder):

        def feed() -> None:
            with os.fdopen(feeder, "wb", closefd=False) as file:
                file.write(data)
            os.close(feeder)

        with at_the_same_time(feed):
            assert echoed(source) == data
    ours, theirs = socket.socketpair()
    with ours, theirs:

        def send() -> None:
            theirs.sendall(data)
            theirs.shutdown(socket.SHUT_WR)

        with at_the_same_time(send):
            assert echoed(ours.fileno()) == data


def echoed(stdin: int) -> bytes:
    with pipe() as (sink, stdout):
        results = []

        def drain() -> None:
            results.append(read_all(sink))

        with at_the_same_time(drain):
            run_on(echo, Stdio(stdin=stdin, stdout=stdout))
            os.close(stdout)
        return bytes(results[0])


def test_closed_stdin_is_at_its_end() -> None:
    assert run_on(echo, Stdio(stdin=NOT_OPEN)).code == 0


def end(agent: FakeAgent) -> None:
    agent.start()
    agent.exit(0)


def test_job_that_ends_does_not_wait_for_stdin() -> None:
    with pipe() as (source, feeder):
        os.write(feeder, b"never read by the job")
        assert run_on(end, Stdio(stdin=source)).code == 0


def test_no_more_of_stdin_is_taken_than_there_is_credit() -> None:
    size = 3 * INITIAL_CREDIT

    def script(agent: FakeAgent) -> None:
        agent.generous = False
        agent.start()
        agent.until(lambda: len(agent.received[Stream.STDIN]) == INITIAL_CREDIT)
        agent.exit(0)

    fd = os.memfd_create("stdin")
    os.truncate(fd, size)
    run_on(script, Stdio(stdin=fd))

    assert os.lseek(fd, 0, os.SEEK_CUR) == INITIAL_CREDIT
    os.close(fd)


def test_stdin_that_the_job_closed_is_read_no_further() -> None:
    def script(agent: FakeAgent) -> None:
        agent.generous = False
        agent.start()
        agent.raw(pack(Kind.CLOSE, Stream.STDIN))
        agent.write(Stream.STDOUT, b"done")
        agent.exit(0)

    assert run(script, stdin=bytes(4 * MIB)).stdout == b"done"
