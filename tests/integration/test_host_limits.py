"""Who waits, who is refused, and whose turn it is, on a host that is too small for all."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mayfly.errors import Quota
from mayfly.host import client, protocol
from tests.integration.host import (
    ALICE,
    BOB,
    MARKS,
    ROOT,
    Host,
    User,
    acting_as,
    claim_fields,
    host_of,
    packet_socket,
)
from tests.integration.waiting import wait_until

pytestmark = MARKS

LIMITS = """
[limits]
machines = 2
line_user = 12
[limits.user]
machines = 1
memory = "1G"
"""
ONE, TWO = User(uid=ALICE), User(uid=BOB)
EACH = 10


@pytest.fixture(scope="module")
def service(warm_home: Path) -> Iterator[Host]:
    """A service for two machines, one for each user."""
    with host_of(warm_home, LIMITS) as host:
        yield host


@pytest.fixture
def host(service: Host) -> Iterator[Host]:
    """That service, with no machine before or after."""
    yield service
    service.forget_jobs()
    service.emptied()


@contextlib.contextmanager
def holding(host: Host, *users: User) -> Iterator[list[client.Connection]]:
    """Have a machine of each of these users."""
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(contextlib.closing(host.connect(u))) for u in users]
        for connection in connections:
            connection.ask("claim", claim_fields())
            connection.answer()
        yield connections


def test_a_user_who_has_enough_waits_and_is_told_where(host: Host) -> None:
    with holding(host, ONE):
        job = host.client("run", "debian-12", "--no-workdir", "--", "echo", "here", user=ONE)
        said = job.heard("waiting in line")
        assert said == ("mayfly: waiting in line, place 1: it wants 1 machine; free: 0 of 1\n")
        assert host.ask("status")["waiting"] == 1
        # Nobody else waits for that.
        assert host.job("--", "echo", "there", user=TWO)[1] == "there\n"
    assert job.end(b"")[:2] == (0, b"here\n")


def test_who_does_not_want_to_wait_is_refused_at_once(host: Host) -> None:
    with holding(host, ONE):
        code, _, said = host.job("--no-wait", "--", "true", user=ONE)
        assert code == 125
        assert "no room for a machine now: it wants 1 machine; free: 0 of 1" in said
    assert host.job("--no-wait", "--", "true", user=ONE)[0] == 0


def test_the_host_is_full_for_everybody(host: Host) -> None:
    with holding(host, ONE, TWO):
        code, _, said = host.job("--no-wait", "--", "true")
        assert code == 125
        assert "free: 0 of 2 (limits.machines)" in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--memory", "2G"], "limits.user.memory allows 1"),
        (["--memory", "900G"], "limits.user.memory allows 1"),
    ],
)
def test_what_never_fits_is_refused_at_once(host: Host, options: list[str], words: str) -> None:
    code, _, said = host.job(*options, "--", "true", user=ONE)
    assert code == 125
    assert "this host never has room for such a machine" in said
    assert words in said


def test_a_line_has_an_end(host: Host) -> None:
    with holding(host, ONE), contextlib.ExitStack() as stack:
        for _ in range(12):
            connection = stack.enter_context(contextlib.closing(host.connect(ONE)))
            connection.ask("claim", claim_fields())
        wait_until(lambda: host.ask("status")["waiting"] == 12, "the line")
        with pytest.raises(Quota, match=r"12 of your requests wait; limits.line_user allows 12"):
            host.ask("claim", ONE, **claim_fields())


def test_who_leaves_the_line_is_forgotten(host: Host) -> None:
    with holding(host, ONE):
        waiting = host.client("run", "debian-12", "--no-workdir", "--", "true", user=ONE)
        waiting.heard("waiting in line")
        waiting.kill()
        wait_until(lambda: host.ask("status")["waiting"] == 0, "the line to be empty")
        assert len(host.machines()) == 1


def test_two_users_share_what_there_is(host: Host) -> None:
    with holding(host, ROOT), contextlib.ExitStack() as stack:
        waiting: dict[socket.socket, str] = {}
        with holding(host, ONE):
            for user, name in [(ONE, "one")] * EACH + [(TWO, "two")] * EACH:
                port = stack.enter_context(contextlib.closing(_port(host, user)))
                protocol.send(port, {"v": 1, "op": "claim", **claim_fields()})
                waiting[port] = name
            wait_until(lambda: host.ask("status")["waiting"] == 2 * EACH, "the line")
        turns = [_next_turn(waiting) for _ in range(2 * EACH)]
    assert sorted(turns) == ["one"] * EACH + ["two"] * EACH
    # All of the first user's came before, and yet neither is ever more than one ahead.
    for count in range(1, len(turns) + 1):
        ahead = turns[:count].count("one") - turns[:count].count("two")
        assert -1 <= ahead <= 1, turns


def _port(host: Host, user: User) -> socket.socket:
    with acting_as(user):
        return packet_socket(host.socket)


def _next_turn(waiting: dict[socket.socket, str]) -> str:
    """Wait for a machine, give it back; gives whose it was."""
    while True:
        ready = select.select(list(waiting), [], [], 60)[0]
        assert ready, "nobody was served"
        for port in ready:
            if _is_served(port):
                port.close()
                return waiting.pop(port)


def _is_served(port: socket.socket) -> bool:
    """Read what has come; tells whether it was the machine, and not a word of the line."""
    got = protocol.receive(port)
    assert got is not None
    message, fds = got
    for fd in fds:
        os.close(fd)
    assert message["type"] in ("ok", "line", "progress"), message
    return bool(message["type"] == "ok")
