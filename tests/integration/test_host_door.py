"""Starting the host service where it cannot or must not start, and its socket under bad clients."""

from __future__ import annotations

import array
import contextlib
import json
import os
import signal
import socket
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mayfly.errors import Quota
from mayfly.host import client
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

IDLE_MOST = 64
STATUS_LIMIT_S = 0.05
EXAMPLES = 150


@pytest.fixture(scope="module")
def host(warm_home: Path) -> Iterator[Host]:
    """A service without standbys."""
    with host_of(warm_home) as host:
        yield host


@pytest.fixture
def unstarted(warm_home: Path) -> Iterator[Host]:
    """What a service needs, and none that runs."""
    with host_of(warm_home, start=False) as host:
        yield host


# --- it does not start ---------------------------------------------------------------------------


def refusal(host: Host, *words: str) -> tuple[int, str]:
    """Give how a service ended that must not start, and what it said."""
    code, output, said = host.run(*(words or ("host", "serve", "--config", str(host.config))))
    assert (output, "Traceback" in said) == ("", False), said
    return code, said


def refused_with_home(host: Host) -> tuple[int, str]:
    process = host.serve()
    code = process.wait(30)
    said = host.log.read_text()
    assert "Traceback" not in said
    return code, said


def test_where_a_file_is_it_does_not_listen(unstarted: Host) -> None:
    unstarted.socket.write_text("somebody's")
    code, said = refused_with_home(unstarted)
    assert code == 5
    assert f"{unstarted.socket} is no socket" in said
    assert unstarted.socket.read_text() == "somebody's"


@pytest.mark.parametrize("kind", [socket.SOCK_SEQPACKET, socket.SOCK_STREAM])
def test_where_somebody_listens_it_does_not(unstarted: Host, kind: int) -> None:
    with socket.socket(socket.AF_UNIX, kind) as other:
        other.bind(str(unstarted.socket))
        other.listen()
        code, said = refused_with_home(unstarted)
        assert code == 5
        assert f"another process listens at {unstarted.socket}" in said
    assert unstarted.socket.exists()


def test_a_dead_services_socket_is_replaced(unstarted: Host) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(unstarted.socket))
    unstarted.start()
    assert unstarted.socket.stat().st_mode & 0o777 == 0o666
    assert unstarted.end(signal.SIGTERM) == 0
    assert not unstarted.socket.exists()
    assert not [path for path in unstarted.top.iterdir() if path.name.startswith(".")]


def test_two_services_do_not_share_their_machines(host: Host) -> None:
    other = host.top / "other.toml"
    text = host.config.read_text().replace(str(host.socket), f"{host.top}/other.sock")
    other.write_text(text)
    process = host.serve(config=other)
    assert process.wait(30) == 5
    assert host.said(f"another host service looks after {host.state}")
    assert host.ask("status")["draining"] is False


def test_it_is_root(unstarted: Host) -> None:
    home = unstarted.top / "nobody"
    home.mkdir(mode=0o700)
    os.chown(home, ALICE, ALICE)
    code, _, said = unstarted.run(
        "host", "serve", "--config", str(unstarted.config), user=User(uid=ALICE)
    )
    assert code == 3
    assert "the host service must run as root" in said
    assert not unstarted.state.exists()


def test_emulation_must_be_allowed(unstarted: Host) -> None:
    unstarted.write_config(emulation=False)
    (unstarted.top / "nobody").mkdir()
    code, said = refused_with_home(unstarted)
    if "listens at" in said:
        pytest.skip("this computer has KVM")
    assert code == 6
    assert "this host has no usable KVM" in said
    assert "allow_emulation = true" in said
    assert not unstarted.socket.exists()


@pytest.mark.parametrize(
    ("settings_text", "words"),
    [
        ("sockets = 1\n", "no such setting 'sockets'"),
        ('requests = "some"\n', "must be one of anyone, listed, registered"),
        ("[[standby]]\nleast = 1\n", "'image' must be given"),
        ("this is not TOML", "is not TOML"),
        ('[[standby]]\nimage = "debian-12"\nleast = 9\n', "must not be below 'least'"),
    ],
)
def test_a_wrong_setting_is_named(unstarted: Host, settings_text: str, words: str) -> None:
    unstarted.write_config(settings_text)
    code, said = refusal(unstarted)
    assert code == 2
    assert words in said
    assert str(unstarted.config) in said


def test_a_file_of_settings_that_is_named_is_there(unstarted: Host) -> None:
    code, said = refusal(unstarted, "host", "serve", "--config", "/no/such/host.toml")
    assert (code, "there is no /no/such/host.toml" in said) == (4, True)


def test_a_host_without_a_service_says_so(unstarted: Host) -> None:
    code, said = refusal(unstarted, "host", "status")
    assert code == 6
    assert f"no host service listens at {unstarted.socket}" in said


# --- many clients, bad clients -------------------------------------------------------------------


@contextlib.contextmanager
def idle(host: Host, user: User, count: int) -> Iterator[list[socket.socket]]:
    """Have so many connections of a user that do nothing."""
    with contextlib.ExitStack() as stack:
        with acting_as(user):
            ports = [stack.enter_context(packet_socket(host.socket)) for _ in range(count)]
        yield ports


def test_each_user_has_so_many_idle_connections(host: Host) -> None:
    one, two = User(uid=ALICE), User(uid=BOB)
    with idle(host, one, IDLE_MOST):
        assert host.ask("status", two)["callers"] == IDLE_MOST + 1
        with pytest.raises(Quota, match="64 connections of yours do nothing"):
            host.ask("status", one)
    alone_with(host).close()
    assert host.ask("status", one)["draining"] is False


def test_status_is_quick_beside_them(host: Host) -> None:
    with idle(host, User(uid=ALICE), IDLE_MOST), idle(host, User(uid=BOB), IDLE_MOST):
        taken = []
        for _ in range(20):
            began = time.monotonic()
            assert host.ask("status")["callers"] == 2 * IDLE_MOST + 1
            taken.append(time.monotonic() - began)
    # Not the slowest: others may be at work on this computer.
    assert statistics.median(taken) < STATUS_LIMIT_S, taken


def test_status_is_quick_while_machines_are_made(host: Host) -> None:
    with contextlib.closing(host.connect()) as connection:
        connection.ask("claim", claim_fields())
        taken: list[float] = []
        while not taken or host.machines("wanted", "starting"):
            began = time.monotonic()
            host.ask("status")
            taken.append(time.monotonic() - began)
        connection.answer()
    host.emptied()
    assert statistics.median(taken) < STATUS_LIMIT_S, taken


def test_who_connects_and_says_nothing_keeps_nobody_waiting(host: Host) -> None:
    with packet_socket(host.socket) as silent:
        assert host.ask("status")["callers"] == 2
        silent.shutdown(socket.SHUT_WR)
        assert silent.recv(100) == b""
    assert host.ask("status")["callers"] == 1


def alone_with(host: Host) -> client.Connection:
    """Give a connection, when those of others are gone."""
    connection = host.connect()

    def is_alone() -> bool:
        connection.ask("status")
        return bool(connection.answer()[0]["callers"] == 1)

    wait_until(is_alone, "the others to be gone")
    return connection


def descriptors(host: Host) -> int:
    """Give how many the service has open for one client that is there alone."""
    assert host.process is not None
    with contextlib.closing(alone_with(host)):
        return len(os.listdir(f"/proc/{host.process.pid}/fd"))


def told(port: socket.socket) -> list[dict[str, object]]:
    """Give what the service says until it hangs up or answers."""
    said: list[dict[str, object]] = []
    with contextlib.suppress(ConnectionError):
        while data := port.recv(1 << 16):
            said.append(json.loads(data))
            if said[-1]["type"] in ("ok", "error"):
                break
    return said


FIELDS = st.sampled_from(["v", "op", "machine", "right", "job"])
nonsense = st.one_of(
    st.binary(max_size=300),
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=20)),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(FIELDS, inner, max_size=4),
        max_leaves=10,
    ).map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries(
        {
            "v": st.one_of(st.just(1), st.integers(), st.text(max_size=3)),
            "op": st.sampled_from(["show", "delete", "pause", "logs", "enter", "release", "x", ""]),
            "machine": st.one_of(st.text(max_size=50), st.integers(), st.none()),
        }
    ).map(lambda value: json.dumps(value).encode()),
)


def test_nonsense_is_answered_and_costs_nothing(host: Host) -> None:
    before = descriptors(host)

    @settings(max_examples=EXAMPLES, database=None)
    @given(data=nonsense, count=st.sampled_from([0, 0, 1, 9]))
    def say(data: bytes, count: int) -> None:
        fds = array.array("i", [port.fileno()] * count)
        with packet_socket(host.socket) as connection:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)] if count else []
            connection.sendmsg([data], rights)
            said = told(connection)
            assert [one["type"] for one in said[-1:]] in ([], ["error"]), said

    with socket.socket() as port:
        say()
    assert descriptors(host) == before


@pytest.mark.parametrize(
    "data",
    [b"x" * (1 << 16) + b"x", b"[" * 60_000, b'{"a":' * 10_000, b'{"v": 1, "op": "claim"}', b""],
    ids=["too long", "deep list", "deep object", "nothing in it", "nothing"],
)
def test_each_bad_packet_is_survived(host: Host, data: bytes) -> None:
    with packet_socket(host.socket) as connection:
        connection.send(data)
        said = told(connection)
    assert [one.get("kind") for one in said] == ([] if not data else ["Invalid"])
    assert host.ask("status", ROOT)["callers"] == 1
