"""Who gives chunks: a web server that has them in one file, or a neighbour."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import urllib.parse
from dataclasses import dataclass, field

from mayfly.errors import Missing, Unavailable, Untrusted
from mayfly.images.chunks.index import Index
from mayfly.images.lists.uris import UriRules
from mayfly.images.transfer.source import WebSource

NEIGHBOUR_S = 20.0
CONNECT_S = 3.0
"""A neighbour is near: one that does not answer at once is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebGiver:
    """The file of all chunks, one after the other, on any web server that knows ``Range``."""

    index: Index
    source: WebSource

    @property
    def name(self) -> str:
        """Say who, for people."""
        return self.source.uri

    def has(self) -> bytes | None:
        """It has all."""
        return None

    def close(self) -> None:
        """Nothing stays open."""

    def give(self, first: int, last: int) -> bytes:
        """Fetch these chunks."""
        begin, end = self.index.starts[first], self.index.starts[last + 1]
        with self.source.open_part(begin, end) as offer:
            if offer.total_bytes != self.index.content_bytes:
                raise Untrusted(
                    f"{self.name} has {offer.total_bytes} bytes, not"
                    f" {self.index.content_bytes} as the index has"
                )
            data = bytearray()
            while len(data) < end - begin and (more := offer.read(end - begin - len(data))):
                data += more
        if len(data) != end - begin:
            raise Unavailable(f"{self.name} ended after {len(data)} of {end - begin} bytes")
        return bytes(data)


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A host that has the image, or a part of it; one connection for each thread stays open."""

    index: Index
    host: str
    port: int
    _own: threading.local = field(default_factory=threading.local)
    _all: list[http.client.HTTPConnection] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Say who, for people."""
        return f"{self.host}:{self.port}"

    def has(self) -> bytes:
        """Ask which chunks it has."""
        return self._ask("have", -(-len(self.index.chunks) // 8))

    def give(self, first: int, last: int) -> bytes:
        """Fetch these chunks."""
        starts = self.index.starts
        return self._ask(f"chunks/{first}-{last}", starts[last + 1] - starts[first])

    def _ask(self, what: str, size: int) -> bytes:
        connection = self._connection()
        try:
            if connection.sock is None:
                connection.connect()
                _patient(connection)
            connection.request("GET", f"/v1/{self.index.key}/{what}")
            answer = connection.getresponse()
            data = answer.read(size + 1)
            rest = answer.read(1 << 16)
        except (OSError, http.client.HTTPException, AttributeError) as error:
            # The last of these: it was closed by another thread just now.
            self._close()
            raise Unavailable(f"{self.name} does not answer: {error}") from error
        if answer.status == 404:
            raise Missing(f"{self.name} has it not")
        if answer.status != 200 or rest:
            self._close()
            raise Unavailable(f"{self.name} answered {answer.status}")
        if len(data) != size:
            self._close()
            raise Untrusted(f"{self.name} sent {len(data)} bytes where {size} were asked for")
        return data

    def close(self) -> None:
        """Let all connections go, also those on which somebody waits."""
        for each in self._all:
            if (open_socket := each.sock) is not None:
                with contextlib.suppress(OSError):
                    open_socket.shutdown(socket.SHUT_RDWR)
            each.close()

    def _connection(self) -> http.client.HTTPConnection:
        made: http.client.HTTPConnection | None = getattr(self._own, "connection", None)
        if made is None:
            made = http.client.HTTPConnection(self.host, self.port, timeout=CONNECT_S)
            self._own.connection = made
            self._all.append(made)
        return made

    def _close(self) -> None:
        self._connection().close()


def _patient(connection: http.client.HTTPConnection) -> None:
    """Give who is there more time than who may not be."""
    if connection.sock is not None:
        connection.sock.settimeout(NEIGHBOUR_S)


def neighbours_of(index: Index, addresses: tuple[str, ...]) -> tuple[Neighbour, ...]:
    """Give the neighbours that the site has named, as HOST:PORT."""
    found = []
    for address in addresses:
        parts = urllib.parse.urlsplit(f"//{address}")
        if parts.hostname and parts.port:
            found.append(Neighbour(index=index, host=parts.hostname, port=parts.port))
    return tuple(found)


def web_giver(index: Index, uri: str, rules: UriRules) -> WebGiver:
    """Give the source."""
    return WebGiver(index=index, source=WebSource(uri=uri, rules=rules))
