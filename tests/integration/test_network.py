"""The networks of a machine, from the machine's side, which a namespace on its tap stands in for.

Nothing leaves this computer but one question for deb.debian.org and one connection to it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mayfly.engine import linux
from mayfly.engine.network import attach as network
from mayfly.engine.network.attach import NetworkPlan, start_network
from mayfly.engine.privileges import unshare
from mayfly.model import NetworkMode
from tests.integration.clients import (
    GUEST_OPEN,
    GUEST_RESTRICTED,
    OPEN,
    RESTRICTED,
    offer,
    plain_client,
    tap_of,
    tun_mode,
)
from tests.integration.wire import Guest, guest_on

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="builds namespaces as root and as another user"),
    pytest.mark.skipif(shutil.which("pasta") is None, reason="passt is not installed"),
]

REFUSED_S = 0.5


def host_address() -> str:
    """Give this computer's address on the network; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


@pytest.fixture
def listener() -> Iterator[int]:
    """A service of the host on all its addresses; gives its port."""
    with socket.socket() as server:
        server.bind(("0.0.0.0", 0))
        server.listen(16)
        yield int(server.getsockname()[1])


@pytest.fixture(params=["root", "plain user"])
def open_guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    """A machine with an open network."""
    with contextlib.ExitStack() as stack:
        if request.param == "root":
            tap = stack.enter_context(start_network(OPEN)).pass_fds[0]
        else:
            stack.enter_context(tun_mode(0o666))
            tap = stack.enter_context(tap_of(plain_client(OPEN)))
        yield stack.enter_context(guest_on(tap, GUEST_OPEN))


def question(name: str) -> bytes:
    """Give a DNS question for the IPv4 address of a name."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack(">6H", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", 1, 1)


def test_the_outside_world_is_reached_by_name() -> None:
    with (
        start_network(OPEN) as attachment,
        guest_on(attachment.pass_fds[0], attachment.guest or {}) as guest,
    ):
        assert attachment.guest is not None
        assert attachment.guest["dns"] == ["10.0.3.3"]
        answer = guest.ask("udp", "10.0.3.3", 53, question("deb.debian.org"))
        assert answer.said == "ok"
        assert answer.data[:2] == b"\0\7"
        address = socket.inet_ntoa(answer.data[-4:])
        assert guest.ask("tcp", address, 80).said == "ok"


REFUSED = [
    *("10.1.2.3", "172.16.0.1", "172.31.255.254", "192.168.1.1", "100.64.0.1", "100.127.255.254"),
    *("169.254.169.254", "169.254.1.1", "192.0.0.8", "198.18.0.1", "240.0.0.1", "10.0.3.1"),
]


def test_the_inside_is_refused_at_once(open_guest: Guest, listener: int) -> None:
    for address in (host_address(), "10.0.2.2", "10.0.3.2", *REFUSED):
        reply = open_guest.ask("tcp", address, listener)
        assert (address, reply.said) == (address, "ECONNREFUSED")
        assert reply.seconds < REFUSED_S
        reply = open_guest.ask("udp", address, listener, b"x")
        assert (address, reply.said) == (address, "EHOSTUNREACH")


def test_only_questions_go_to_the_resolver(open_guest: Guest) -> None:
    assert open_guest.ask("tcp", "10.0.3.3", 53).said == "ECONNREFUSED"
    assert open_guest.ask("udp", "10.0.3.3", 5353, b"x").said == "EHOSTUNREACH"


@pytest.fixture
def nothing_private(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the refusals that would hide what a test is about."""
    monkeypatch.setattr(network, "own_networks", tuple)
    monkeypatch.setattr(network, "PRIVATE", ())


@contextlib.contextmanager
def machine(plan: NetworkPlan, **guest: str) -> Iterator[Guest]:
    """Start a network and a stand-in for a machine on it."""
    with start_network(plan) as attachment:
        wanted = {**(attachment.guest or {}), **guest}
        with guest_on(attachment.pass_fds[0], wanted) as stand_in:
            yield stand_in


@pytest.mark.usefixtures("nothing_private")
def test_without_the_refusal_the_host_would_be_reached(listener: int) -> None:
    # The tests above would pass on a network that carries nothing: this one shows that it does.
    with machine(OPEN) as guest:
        assert guest.ask("tcp", host_address(), listener).said == "ok"


@pytest.mark.usefixtures("nothing_private")
def test_a_site_network_is_refused(listener: int) -> None:
    plan = NetworkPlan(mode=NetworkMode.OPEN, site_networks=(f"{host_address()}/28",))
    with machine(plan) as guest:
        assert guest.ask("tcp", host_address(), listener).said == "ECONNREFUSED"


@pytest.mark.usefixtures("nothing_private")
def test_a_forged_sender_gets_nowhere(listener: int) -> None:
    with machine(OPEN, address="10.0.2.99") as guest:
        assert guest.ask("tcp", host_address(), listener, limit_s=1).said == "timeout"


def test_a_resolver_on_loopback_still_answers(tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.53\n")

    def client(channel: socket.socket) -> None:
        unshare(linux.CLONE_NEWNS)
        linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
        linux.mount(str(tmp_path / "resolv.conf"), "/etc/resolv.conf", "", linux.MS_BIND)
        offer(channel, OPEN)

    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        try:
            server.bind(("127.0.0.53", 53))
        except OSError:
            pytest.skip("this host has a resolver on 127.0.0.53")
        tap = stack.enter_context(tap_of(client))
        guest = stack.enter_context(guest_on(tap, GUEST_OPEN))
        threading.Thread(target=answer_once, args=[server], daemon=True).start()
        assert guest.ask("udp", "10.0.3.3", 53, question("any.test")).data == b"the answer"


def answer_once(server: socket.socket) -> None:
    _, sender = server.recvfrom(512)
    server.sendto(b"the answer", sender)


# --- restricted ----------------------------------------------------------------------------------


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"a page")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@contextlib.contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[None]:
    # In a thread, so only once everything is forked.
    thread = threading.Thread(target=server.serve_forever, args=[0.05], daemon=True)
    thread.start()
    yield
    server.shutdown()


@pytest.mark.parametrize("who", ["root", "plain user"])
def test_only_the_list_is_reached_through_the_proxy(who: str) -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Page))
        port = server.server_address[1]
        plan = NetworkPlan(mode=NetworkMode.RESTRICTED, allow=(f"127.0.0.1:{port}",))
        if who == "root":
            attachment = stack.enter_context(start_network(plan))
            tap = attachment.pass_fds[0]
            assert attachment.env == PROXY_ENV
            assert attachment.guest == {**GUEST_RESTRICTED, "prefix": 24, "mtu": 1500}
        else:
            stack.enter_context(tun_mode(0o666))
            tap = stack.enter_context(tap_of(plain_client(plan)))
        guest = stack.enter_context(guest_on(tap, GUEST_RESTRICTED))
        stack.enter_context(serving(server))
        # By default nothing at 127.0.0.1 is asked of a proxy.
        env = {**PROXY_ENV, "no_proxy": "", "NO_PROXY": ""}
        assert guest.fetch(f"http://127.0.0.1:{port}/", env) == (200, "a page")
        status, text = guest.fetch(f"http://localhost:{port}/", env)
        assert status == 403
        assert f"localhost:{port} is not on this machine's list" in text


PROXY_ENV = {
    **dict.fromkeys(
        ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://10.0.2.2:3128"
    ),
    **dict.fromkeys(("no_proxy", "NO_PROXY"), "localhost,127.0.0.1,::1"),
}


def test_past_the_proxy_there_is_no_way(listener: int) -> None:
    with machine(RESTRICTED) as guest:
        assert guest.ask("tcp", "10.0.2.2", 3128).said == "ok"
        for address, expected in (
            (host_address(), "ENETUNREACH"),
            ("10.0.3.3", "ENETUNREACH"),
            ("169.254.169.254", "ENETUNREACH"),
            ("10.0.2.2", "ECONNREFUSED"),
        ):
            reply = guest.ask("tcp", address, listener)
            assert (address, reply.said) == (address, expected)
            assert reply.seconds < REFUSED_S


def test_a_route_that_root_adds_in_a_restricted_machine_leads_nowhere(listener: int) -> None:
    with machine(RESTRICTED, gateway="10.0.2.2") as guest:
        for address in (host_address(), "10.0.3.3"):
            assert guest.ask("tcp", address, listener, limit_s=0.5).said != "ok"
