"""A web server of tests, which answers as it is told, also badly."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[BaseHTTPRequestHandler], None]


def reply(
    status: int = 200, body: bytes = b"", length: int | None = None, **headers: str
) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for key, value in headers.items():
            request.send_header(key, value)
        if length is None or length >= 0:
            request.send_header("Content-Length", str(len(body) if length is None else length))
        request.end_headers()
        request.wfile.write(body)

    return answer


def drip(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    for _ in range(600):
        request.wfile.write(b"x")
        time.sleep(0.05)


def drip_headers(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.0 200 OK\r\nX: ")
    drip(request)


def hang(request: BaseHTTPRequestHandler) -> None:
    request.rfile.read(1)


def flood(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    for _ in range(10_000):
        request.wfile.write(b"x" * 10_000)


@dataclass(kw_only=True)
class File:
    """A file that a good server has; it may break off, and counts how often it is asked."""

    body: bytes
    tag: str = '"one"'
    breaks: list[int] = field(default_factory=list)
    """After how many bytes of its answer it breaks off, the first time, the second time, ..."""
    ranges: list[str] = field(default_factory=list)
    """What was asked for."""
    whole: bool = False
    """Its server knows no ``Range``."""

    def __call__(self, request: BaseHTTPRequestHandler) -> None:
        """Answer as RFC 9110 has it."""
        wanted = request.headers.get("Range", "")
        self.ranges.append(wanted)
        found = re.fullmatch(r"bytes=([0-9]+)-([0-9]*)", wanted)
        if self.whole or request.headers.get("If-Range", self.tag) != self.tag:
            found = None
        start = int(found[1]) if found else 0
        end = int(found[2]) + 1 if found and found[2] else len(self.body)
        if found and start >= len(self.body):
            request.send_error(416)
            return
        part = self.body[start:end]
        request.send_response(206 if found else 200)
        if found:
            last = start + len(part) - 1
            request.send_header("Content-Range", f"bytes {start}-{last}/{len(self.body)}")
        if self.tag:
            request.send_header("ETag", self.tag)
        request.send_header("Content-Length", str(len(part)))
        request.end_headers()
        request.wfile.write(part[: self.breaks.pop(0)] if self.breaks else part)


@contextmanager
def serving() -> Iterator[tuple[str, dict[str, Answer]]]:
    """Run a web server: its URL, and what it answers for which path."""
    answers: dict[str, Answer] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                answers[self.path.partition("?")[0]](self)
            except (BrokenPipeError, ConnectionResetError):
                return

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # its name there
            """Say nothing."""

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_port}", answers
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


Server = tuple[str, dict[str, Answer]]
