"""The proxy against real sockets: an HTTP server and an echo server on this computer's loopback."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address

import pytest

from mayfly.engine.forked import forked
from mayfly.engine.network import proxy
from mayfly.engine.network.proxy import CONNECTIONS, Gate, Patience
from mayfly.engine.network.request import Request
from mayfly.engine.network.rules import Address, parse_allowed
from mayfly.errors import Denied, Unavailable

LIMIT_S = 20.0
NAMES = {
    "here.test": ("127.0.0.1",),
    "both.test": ("192.168.0.1", "127.0.0.1"),
    "inward.test": ("10.0.0.1", "169.254.169.254"),
}


@dataclass(slots=True)
class World:
    """A proxy and two servers behind it."""

    proxy: tuple[str, int]
    http_port: int
    echo_port: int
    closed_port: int
    requests: list[str] = field(default_factory=list)
    """What the HTTP server was asked, as its first line and fields."""

    @property
    def url(self) -> str:
        """Give a page of the HTTP server."""
        return f"http://here.test:{self.http_port}/"

    def connect(self) -> socket.socket:
        """Open a connection to the proxy."""
        return socket.create_connection(self.proxy, timeout=LIMIT_S)

    def ask(self, data: bytes) -> bytes:
        """Send bytes to the proxy and read to the end."""
        with self.connect() as connection:
            connection.sendall(data)
            return read_all(connection)

    def tunnel(self, target: str, early: bytes = b"") -> socket.socket:
        """Open a tunnel; fails the test unless it is established."""
        connection = self.connect()
        connection.sendall(f"CONNECT {target} HTTP/1.1\r\n\r\n".encode() + early)
        assert read_head(connection).startswith(b"HTTP/1.1 200 ")
        return connection


def read_all(connection: socket.socket) -> bytes:
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def read_head(connection: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        assert byte, data
        data += byte
    return data


def read_exactly(connection: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        part = connection.recv(count - len(data))
        assert part
        data += part
    return bytes(data)


def lookup(name: str, port: int) -> Iterable[Address]:
    assert port
    if name not in NAMES:
        raise Unavailable(f"the host cannot resolve '{name}'")
    return map(ip_address, NAMES[name])


def bound() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    return listener


def port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def serve_echo(listener: socket.socket) -> None:
    def echo(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(1 << 16):
                connection.sendall(data)

    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=echo, args=[connection], daemon=True).start()


def http_server(world: World, listener: socket.socket) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            world.requests.append(f"{self.requestline}\n{self.headers}")
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            answer = body or b"x" * 300_000
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    return server


@pytest.fixture
def patience() -> Patience:
    return Patience(linger_s=0.2)


@pytest.fixture
def world(patience: Patience) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        front, back, echo, closed = (stack.enter_context(bound()) for _ in range(4))
        for listener in (front, back, echo):
            listener.listen(128)
        ports = [port_of(one) for one in (back, echo, closed)]
        hosts = ("here.test", "both.test", "inward.test", "nowhere.test", "127.0.0.1")
        allowed = [parse_allowed(f"{host}:{port}") for host in hosts for port in ports]
        gate = Gate(allowed=allowed, refused=tuple, resolve=lookup, patience=patience)
        # The proxy first: a process with threads should not fork.
        server = forked(
            lambda channel: proxy.serve(channel, front, gate, None),
            name="proxy",
            keep=[front.fileno()],
        )
        stack.enter_context(server).receive()
        made = World(("127.0.0.1", port_of(front)), ports[0], ports[1], ports[2])
        pages = http_server(made, back)
        threading.Thread(target=pages.serve_forever, args=[0.05], daemon=True).start()
        stack.callback(pages.server_close)
        stack.callback(pages.shutdown)
        threading.Thread(target=serve_echo, args=[echo], daemon=True).start()
        stack.callback(echo.shutdown, socket.SHUT_RDWR)
        yield made


def through(world: World, url: str, data: bytes | None = None) -> bytes:
    handler = urllib.request.ProxyHandler({"http": f"http://127.0.0.1:{world.proxy[1]}"})
    with urllib.request.build_opener(handler).open(url, data=data, timeout=LIMIT_S) as answer:
        body: bytes = answer.read()
        return body


def test_a_page_comes_through(world: World) -> None:
    assert through(world, world.url) == b"x" * 300_000
    assert world.requests[0].startswith("GET / HTTP/1.1\n")
    assert "Connection: close" in world.requests[0]


def test_a_body_goes_through(world: World) -> None:
    assert through(world, world.url, data=b"abc" * 500_000) == b"abc" * 500_000


def test_a_tunnel_carries_both_ways_at_once(world: World) -> None:
    data = bytes(range(256)) * 32_768
    with world.tunnel(f"here.test:{world.echo_port}") as tunnel:
        sender = threading.Thread(target=tunnel.sendall, args=[data])
        sender.start()
        # Nothing is read before much is on its way: a proxy that waits for one side hangs here.
        sender.join(0.2)
        assert read_exactly(tunnel, len(data)) == data
        sender.join()


def test_what_is_sent_early_is_not_lost(world: World) -> None:
    with world.tunnel(f"here.test:{world.echo_port}", early=b"hello") as tunnel:
        assert read_exactly(tunnel, 5) == b"hello"


def test_the_end_of_one_direction_is_passed_on(world: World) -> None:
    with world.tunnel(f"here.test:{world.echo_port}") as tunnel:
        tunnel.sendall(b"last words")
        tunnel.shutdown(socket.SHUT_WR)
        assert read_all(tunnel) == b"last words"


def test_an_address_on_the_list_is_reached(world: World) -> None:
    with world.tunnel(f"127.0.0.1:{world.echo_port}") as tunnel:
        tunnel.sendall(b"abc")
        assert read_exactly(tunnel, 3) == b"abc"


def test_the_addresses_that_are_not_let_through_are_left_out(world: World) -> None:
    assert through(world, f"http://both.test:{world.http_port}/", data=b"x") == b"x"


@pytest.mark.parametrize(
    ("target", "status", "words"),
    [
        ("other.test:{http}", 403, "other.test:{http} is not on this machine's list"),
        ("here.test:1", 403, "here.test:1 is not on this machine's list"),
        ("127.0.0.2:{http}", 403, "not on this machine's list"),
        ("inward.test:{http}", 403, "10.0.0.1, 169.254.169.254, which is not let through"),
        ("nowhere.test:{http}", 503, "cannot resolve 'nowhere.test'"),
        ("here.test:{closed}", 503, "cannot connect to here.test:{closed}: 127.0.0.1"),
    ],
)
def test_a_refusal_says_why(world: World, target: str, status: int, words: str) -> None:
    ports = {"http": world.http_port, "closed": world.closed_port}
    with pytest.raises(urllib.error.HTTPError) as caught:
        through(world, f"http://{target.format(**ports)}/")
    with caught.value:
        assert caught.value.code == status
        assert words.format(**ports) in caught.value.read().decode()
    assert not world.requests


def test_a_tunnel_is_refused_like_a_page(world: World) -> None:
    connection = http.client.HTTPConnection(*world.proxy, timeout=LIMIT_S)
    connection.set_tunnel("other.test", 443)
    with pytest.raises(OSError, match="Tunnel connection failed: 403"):
        connection.connect()


def test_the_host_field_of_the_client_is_not_believed(world: World) -> None:
    request = f"GET {world.url} HTTP/1.1\r\nHost: admin.test\r\n\r\n"
    assert world.ask(request.encode()).startswith(b"HTTP/1.1 200 ")
    assert f"Host: here.test:{world.http_port}" in world.requests[0]
    assert "admin.test" not in world.requests[0]


def test_only_the_first_request_of_a_connection_is_served(world: World) -> None:
    request = f"GET {world.url} HTTP/1.1\r\n\r\n".encode()
    answer = world.ask(request * 3)
    assert answer.count(b"HTTP/1.1 200 ") == 1
    assert len(world.requests) == 1


def test_nothing_beyond_the_announced_body_is_passed_on(world: World) -> None:
    hidden = b"GET /secret HTTP/1.1\r\nHost: admin.test\r\n\r\n"
    head = f"POST {world.url} HTTP/1.1\r\nContent-Length: 5\r\n\r\n".encode()
    answer = world.ask(head + b"hello" + hidden)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"hello")
    assert len(world.requests) == 1


@pytest.mark.parametrize("patience", [Patience(idle_s=0.3, linger_s=0.2)])
@pytest.mark.parametrize("pause", [False, True])
def test_a_host_gets_the_head_and_the_body_and_no_more(world: World, pause: bool) -> None:
    head = f"POST http://here.test:{world.echo_port}/x HTTP/1.1\r\nContent-Length: 5\r\n\r\n"
    got = b""
    with world.connect() as connection:
        connection.sendall(head.encode() + b"he")
        # The host says back what it got.
        while pause and not got.endswith(b"\r\n\r\nhe"):
            got += connection.recv(1 << 16)
        connection.sendall(b"lloGET /secret HTTP/1.1\r\n\r\n")
        got += read_all(connection)
    assert got.startswith(b"POST /x HTTP/1.1\r\n")
    assert got.endswith(b"\r\nConnection: close\r\n\r\nhello")


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"POST http://here.test/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET http://here.test/ HTTP/1.1\r\nX: " + b"y" * 70_000,
    ],
)
def test_a_malformed_request_is_answered_with_400(world: World, data: bytes) -> None:
    assert world.ask(data).startswith(b"HTTP/1.1 400 ")
    assert not world.requests


def test_a_request_that_breaks_off_leaves_no_trace(world: World) -> None:
    with world.connect() as connection:
        connection.sendall(b"GET http://here")
    assert through(world, world.url, data=b"x") == b"x"


@pytest.mark.parametrize("patience", [Patience(head_s=0.2, linger_s=0.2)])
def test_a_slow_head_is_not_waited_for(world: World) -> None:
    with world.connect() as connection:
        connection.sendall(b"GET http://here.test/ HT")
        assert b"no request within 0.2 s" in read_all(connection)


@pytest.mark.parametrize("patience", [Patience(idle_s=0.2, linger_s=0.2)])
def test_an_idle_tunnel_is_closed(world: World) -> None:
    with world.tunnel(f"here.test:{world.echo_port}") as tunnel:
        assert read_all(tunnel) == b""


def test_one_connection_too_many_is_refused_and_a_free_place_is_used(world: World) -> None:
    target = f"here.test:{world.echo_port}"
    tunnels = [world.tunnel(target) for _ in range(CONNECTIONS)]
    with contextlib.ExitStack() as stack:
        for tunnel in tunnels[1:]:
            stack.enter_context(tunnel)
        with world.connect() as connection:
            assert read_all(connection).startswith(b"HTTP/1.1 429 ")
        tunnels[0].close()
        refused = b"429"
        while refused:
            with world.connect() as connection:
                connection.sendall(f"CONNECT {target} HTTP/1.1\r\n\r\n".encode())
                refused = b"" if b" 200 " in read_head(connection) else b"429"
        assert not refused


def test_a_name_that_is_not_listed_is_not_looked_up() -> None:
    asked = []

    def note(name: str, port: int) -> list[Address]:
        asked.append((name, port))
        return [ip_address("203.0.113.9")]

    gate = Gate(allowed=[parse_allowed("here.test:80")], refused=tuple, resolve=note)
    with pytest.raises(Denied):
        gate.addresses(Request(host="secret.here.test", port=80, head=b"", body_bytes=0))
    with pytest.raises(Denied):
        gate.addresses(Request(host="here.test", port=81, head=b"", body_bytes=0))
    assert not asked
    gate.addresses(Request(host="here.test", port=80, head=b"", body_bytes=0))
    assert asked == [("here.test", 80)]


def test_the_hosts_addresses_are_asked_for_each_time() -> None:
    own = [parse_allowed("203.0.113.9/32:1").network]
    gate = Gate(
        allowed=[parse_allowed("here.test:80")],
        refused=lambda: [network for network in own if network],
        resolve=lambda name, port: [ip_address("203.0.113.9")] if name and port else [],
    )
    request = Request(host="here.test", port=80, head=b"", body_bytes=0)
    with pytest.raises(Denied):
        gate.addresses(request)
    own.clear()
    assert gate.addresses(request) == [ip_address("203.0.113.9")]


def test_the_hosts_resolver_knows_localhost() -> None:
    assert ip_address("127.0.0.1") in proxy.resolve("localhost", 80)
    with pytest.raises(Unavailable, match="cannot resolve"):
        proxy.resolve("a" * 64 + ".invalid", 80)
