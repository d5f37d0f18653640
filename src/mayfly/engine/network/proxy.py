"""The proxy of a restricted network: HTTP and tunnels to the hosts on a list, and nowhere else.

It listens inside the machine's namespace, where nothing else is, and connects from the host's. One
request per connection. A thread for each of at most 64 connections, in a process of its own.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from mayfly.engine import linux
from mayfly.engine.forked import report
from mayfly.engine.network.netns import Ids
from mayfly.engine.network.request import END_OF_HEAD, HEAD_LIMIT, Request, parse_request, refusal
from mayfly.engine.network.rules import Address, Allowed, Network, is_listed, permitted
from mayfly.engine.privileges import become
from mayfly.errors import EXIT_AND_HTTP, Denied, Invalid, MayflyError, Quota, Unavailable

log = logging.getLogger("mayfly.proxy")

CONNECTIONS = 64
BUFFER = 1 << 16
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Time limits."""

    head_s: float = 15
    """From the connection to the end of the request's head."""
    connect_s: float = 15
    """For each address of a host."""
    idle_s: float = 900
    """Without a byte in either direction."""
    linger_s: float = 2
    """For the client to take the last bytes and close."""


def resolve(name: str, port: int) -> list[Address]:
    """Ask the host's resolver for the addresses of a name; raises ``Unavailable``."""
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Unavailable(f"the host cannot resolve '{name}': {error}") from error
    texts = dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found)
    return [ip_address(text) for text in texts]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What is let through."""

    allowed: Sequence[Allowed]
    refused: Callable[[], Sequence[Network]]
    """Asked for each connection: the host's own addresses may change."""
    resolve: Callable[[str, int], Iterable[Address]] = resolve
    patience: Patience = field(default_factory=Patience)

    def addresses(self, request: Request) -> list[Address]:
        """Give the addresses that a request may be sent to; raises ``Denied``."""
        host, port = request.host, request.port
        # Before the name is looked up: a question to a resolver is a message to the outside, too.
        if not is_listed(self.allowed, host, port):
            raise Denied(
                f"{request.target} is not on this machine's list", hint="add it to the list"
            )
        found = self.resolve(host, port) if isinstance(host, str) else [host]
        try:
            return permitted(self.allowed, found, port, self.refused())
        except Denied as error:
            raise Denied(f"{request.target}: {error.message}") from None


def serve(channel: socket.socket, listener: socket.socket, gate: Gate, ids: Ids | None) -> None:
    """Serve until the maker of this process ends it. The body of a forked child.

    ``ids``: whom to become, when root calls; reported when it is done.
    """
    if ids is not None:
        become(ids.uid, ids.gid)
    linux.no_new_privileges()
    report(channel)
    places = threading.BoundedSemaphore(CONNECTIONS)
    with selectors.DefaultSelector() as selector:
        for source in (channel, listener):
            selector.register(source, selectors.EVENT_READ)
        while True:
            ready = [key.fileobj for key, _ in selector.select()]
            if channel in ready:
                return
            with contextlib.suppress(OSError):
                client, _ = listener.accept()
                _admit(client, gate, places)


def _admit(client: socket.socket, gate: Gate, places: threading.BoundedSemaphore) -> None:
    if not places.acquire(blocking=False):
        with client:
            client.setblocking(False)
            client.send(_answer(Quota(f"{CONNECTIONS} connections are open already")))
        return

    def work() -> None:
        try:
            handle(client, gate)
        finally:
            places.release()

    threading.Thread(target=work, daemon=True).start()


def handle(client: socket.socket, gate: Gate) -> None:
    """Serve one connection to its end."""
    with client, contextlib.suppress(OSError):
        try:
            head, rest = read_head(client, gate.patience.head_s)
            request = parse_request(head)
            upstream = _connect(request, gate)
        except MayflyError as error:
            log.info("refused: %s", error.message)
            client.settimeout(gate.patience.connect_s)
            client.sendall(_answer(error))
        else:
            with upstream:
                _carry(client, upstream, request, rest, gate.patience.idle_s)
        _part(client, gate.patience.linger_s)


def _answer(error: MayflyError) -> bytes:
    reason = f"{error.message}; {error.hint}" if error.hint else error.message
    return refusal(EXIT_AND_HTTP[type(error)][1], reason)


def read_head(client: socket.socket, limit_s: float) -> tuple[bytes, bytes]:
    """Read up to the empty line; gives the head with it, and what came after."""
    deadline = time.monotonic() + limit_s
    data = bytearray()
    while (end := data.find(END_OF_HEAD)) < 0:
        if len(data) >= HEAD_LIMIT:
            raise Invalid(f"the request's head exceeds {HEAD_LIMIT} bytes")
        client.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            more = client.recv(HEAD_LIMIT - len(data))
        except TimeoutError:
            raise Invalid(f"no request within {limit_s:g} s") from None
        if not more:
            raise Invalid("the request ends within its head")
        data += more
    end += len(END_OF_HEAD)
    return bytes(data[:end]), bytes(data[end:])


def _connect(request: Request, gate: Gate) -> socket.socket:
    trouble = ""
    for address in gate.addresses(request):
        try:
            return socket.create_connection(
                (str(address), request.port), timeout=gate.patience.connect_s
            )
        except OSError as error:
            trouble = f"{address}: {error.strerror or error}"
    raise Unavailable(f"cannot connect to {request.target}: {trouble}")


def _carry(
    client: socket.socket, upstream: socket.socket, request: Request, rest: bytes, idle_s: float
) -> None:
    if request.head:
        rest = rest[: request.body_bytes]
        up = Flow(client, upstream, bytearray(request.head + rest))
        up.left = request.body_bytes - len(rest)
        relay(up, Flow(upstream, client), idle_s=idle_s)
    else:
        client.sendall(ESTABLISHED)
        up = Flow(client, upstream, bytearray(rest))
        relay(up, Flow(upstream, client), idle_s=idle_s)


@dataclass(slots=True)
class Flow:
    """One direction of a connection."""

    source: socket.socket
    sink: socket.socket
    buffer: bytearray = field(default_factory=bytearray)
    left: int | None = None
    """Bytes that may still be read; None: until the source ends."""
    ended: bool = False
    """The source has ended, and the sink was told."""

    def wants_to_read(self) -> bool:
        """Tell whether more is to be taken from the source."""
        return not self.ended and self.left != 0 and len(self.buffer) < BUFFER

    def read(self) -> None:
        """Take what there is."""
        data = self.source.recv(BUFFER if self.left is None else min(BUFFER, self.left))
        if self.left is not None:
            self.left -= len(data)
        self.buffer += data
        self.ended = not data
        self.tell_end()

    def write(self) -> None:
        """Give on what the sink takes."""
        del self.buffer[: self.sink.send(self.buffer)]
        self.tell_end()

    def tell_end(self) -> None:
        """Close the sink for writing when all is written."""
        if self.ended and not self.buffer:
            self.sink.shutdown(socket.SHUT_WR)


def relay(up: Flow, down: Flow, *, idle_s: float) -> None:
    """Carry bytes both ways until the answer has ended, an error, or ``idle_s`` without any."""
    for flow in (up, down):
        flow.source.setblocking(False)
    with selectors.DefaultSelector() as selector:
        while not down.ended or down.buffer:
            _watch(selector, up, down)
            ready = selector.select(idle_s)
            if not ready:
                return
            for key, events in ready:
                reading, writing = key.data
                with contextlib.suppress(BlockingIOError):
                    if events & selectors.EVENT_READ:
                        reading.read()
                    if events & selectors.EVENT_WRITE:
                        writing.write()


def _watch(selector: selectors.BaseSelector, up: Flow, down: Flow) -> None:
    for reading, writing in ((up, down), (down, up)):
        wanted = selectors.EVENT_READ if reading.wants_to_read() else 0
        wanted |= selectors.EVENT_WRITE if writing.buffer else 0
        known = selector.get_map().get(reading.source)
        if known is not None and known.events != wanted:
            selector.unregister(reading.source)
            known = None
        if known is None and wanted:
            selector.register(reading.source, wanted, (reading, writing))


def _part(client: socket.socket, limit_s: float) -> None:
    """Close gently: with input unread, the client would be cut off from what was sent last."""
    client.settimeout(limit_s)
    client.shutdown(socket.SHUT_WR)
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline and client.recv(BUFFER):
        pass
