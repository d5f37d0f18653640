"""Give neighbours the chunks that are here, by HTTP.

``GET /v1/INDEX/have`` gives a bit for each chunk, ``GET /v1/INDEX/chunks/FIRST-LAST`` the chunks.
Nothing else is answered, and nothing that a caller sends becomes a path but 64 hexadecimal digits.
"""

from __future__ import annotations

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import socket
from typing import Any

from mayfly.errors import Missing
from mayfly.images.chunks.holdings import Holding, Holdings
from mayfly.images.chunks.index import CHUNK_MOST

ANSWER_MOST = 2 * CHUNK_MOST
CONNECTIONS_MOST = 128
IDLE_S = 30.0
_PATH = re.compile(r"/v1/([0-9a-f]{64})/(?:(have)|chunks/([0-9]{1,7})-([0-9]{1,7}))")


class ChunkServer(ThreadingHTTPServer):
    """A server for neighbours; takes a bounded number of connections, each for a bounded time."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], holdings: Holdings) -> None:
        self.holdings = holdings
        self._places = threading.BoundedSemaphore(CONNECTIONS_MOST)
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, or not at all when too many are answered already."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread can be had
            self._places.release()
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over callers who went away."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_S
    server: ChunkServer
    connection: socket

    def do_GET(self) -> None:
        """Answer."""
        found = _PATH.fullmatch(self.path)
        try:
            if found is None:
                raise Missing("there is no such thing here")
            data = _answer(self.server.holdings.find(found[1]), found)
        except (Missing, OSError, ValueError):
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # its name there
        """Say nothing."""


def _answer(holding: Holding, found: re.Match[str]) -> bytes:
    if found[2]:
        return holding.bits()
    first, last = int(found[3]), int(found[4])
    starts = holding.index.starts
    if not first <= last < len(starts) - 1 or starts[last + 1] - starts[first] > ANSWER_MOST:
        raise Missing("there are no such chunks")
    data = holding.read(first, last)
    if data is None:
        raise Missing("some of them are not here")
    return data
