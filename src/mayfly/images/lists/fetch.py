"""Fetch a signed list: a small file, by HTTP(S), from a server that may be slow, wrong or hostile.

A server that redirects to this host, or to what lies beside it, is refused: root does the asking.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mayfly import __version__
from mayfly.errors import Invalid, Unavailable, Untrusted
from mayfly.images.lists.check import MESSAGE_MOST
from mayfly.images.lists.rules import Refused
from mayfly.images.lists.uris import STRICT, UriRules, check_uri, find_address, is_inner

DEADLINE_S = 60.0
_SILENCE_S = 20.0
_REDIRECTS_MOST = 5
_CHUNK = 1 << 16
_HEADERS = {"User-Agent": f"mayfly/{__version__}", "Accept": "*/*"}


def check_url(url: str, rules: UriRules = STRICT) -> str:
    """Give the URL of a list, as the site's admin typed it; raises ``Invalid``.

    ``file:///PATH`` is a list of the site's own; a host that is this one is meant so.
    """
    if url.startswith("file:///"):
        return url
    try:
        return check_uri(url, UriRules(schemes=rules.schemes, inner=True))
    except Refused as refused:
        raise Invalid(
            f"this is no URL of a list: {refused.refusal.detail}",
            hint="write https://HOST/PATH, or file:///PATH",
        ) from refused


def fetch(url: str, *, most: int = MESSAGE_MOST, deadline_s: float = DEADLINE_S) -> bytes:
    """Fetch a whole file of at most so many bytes.

    Raises ``Unavailable`` when the server cannot be reached, does not end, or has no such file, and
    ``Untrusted`` when it sends too much or elsewhere.
    """
    if url.startswith("file:///"):
        return _read_file(Path(unquote(urlsplit(url).path)), most)
    with _Deadline(deadline_s) as deadline, _asking(url, deadline):
        request = urllib.request.Request(url, headers=_HEADERS)  # noqa: S310  # check_url was here
        with _opener(url, deadline).open(request, timeout=_SILENCE_S) as answer:
            return _body(answer, url, most, deadline)


def _read_file(file: Path, most: int) -> bytes:
    try:
        with file.open("rb") as opened:
            data = opened.read(most + 1)
    except OSError as error:
        raise Unavailable(
            f"cannot read {file}: {error.strerror}", hint="see that the list lies there"
        ) from error
    _check_bound(len(data), str(file), most)
    return data


def _body(answer: Any, url: str, most: int, deadline: _Deadline) -> bytes:
    data = bytearray()
    while chunk := answer.read1(_CHUNK):
        data += chunk
        _check_bound(len(data), url, most)
    deadline.check(url)
    promised = answer.headers.get("Content-Length", "")
    if promised.isascii() and promised.isdigit() and int(promised) != len(data):
        raise Unavailable(
            f"{url} ended after {len(data)} of {promised} bytes", hint="the next update asks again"
        )
    return bytes(data)


def _check_bound(length: int, where: str, most: int) -> None:
    if length > most:
        raise Untrusted(
            f"{where} has more than {most} bytes: that is no image list",
            hint="see that the URL is that of a signed list",
        )


class _Deadline:
    """Ends all that has to do with one server when its time is up, however it keeps us waiting."""

    def __init__(self, seconds: float) -> None:
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._end)
        self._seconds = seconds
        self._over = False

    def __enter__(self) -> _Deadline:
        self._timer.daemon = True
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def watch(self, connection: socket.socket) -> None:
        """Cut this connection off, too, when the time is up."""
        self._sockets.append(connection)
        if self._over:
            self._end()  # it was, before there was a connection

    def check(self, url: str) -> None:
        """Refuse an answer that was cut off."""
        if self._over:
            raise Unavailable(
                f"{url} did not answer within {self._seconds:g} s",
                hint="the next update asks again",
            )

    def _end(self) -> None:
        self._over = True
        for each in self._sockets:
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # it was closed meanwhile


@contextmanager
def _asking(url: str, deadline: _Deadline) -> Iterator[None]:
    """Say what went wrong with whom."""
    try:
        yield
    except Refused as refused:
        raise Untrusted(
            f"{url} leads elsewhere: {refused.refusal.detail}",
            hint="subscribe the list where it really is",
        ) from refused
    except urllib.error.HTTPError as error:
        error.close()
        raise Unavailable(
            f"{url} answered {error.code} {error.reason}", hint="see that the list is still there"
        ) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        deadline.check(url)
        reason = getattr(error, "reason", None) or error
        raise Unavailable(f"cannot fetch {url}: {reason}", hint="the next update asks again") from (
            error
        )


# --- connections that look where they go ---------------------------------------------------------
# The hook _create_connection is where http.client, and nothing before it, knows the address.


def _opener(url: str, deadline: _Deadline) -> urllib.request.OpenerDirector:
    inner = _is_inner_host(urlsplit(url).hostname or "")
    rules = UriRules(inner=inner)
    return urllib.request.build_opener(
        _Http(rules, deadline), _Https(rules, deadline), _Redirects(rules)
    )


def _is_inner_host(host: str) -> bool:
    """Tell whether the admin himself named this host: then its own redirects may as well."""
    address = find_address(host)
    return is_inner(address) if address else host.lower().rstrip(".") == "localhost"


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = _REDIRECTS_MOST
    max_repeats = 2

    def __init__(self, rules: UriRules) -> None:
        self._rules = rules

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        check_uri(newurl, self._rules)
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise Untrusted(
                f"{req.full_url} leads from https to {newurl[:200]}",
                hint="subscribe the list where it really is",
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Http(urllib.request.HTTPHandler):
    def __init__(self, rules: UriRules, deadline: _Deadline) -> None:
        super().__init__()
        self._rules, self._deadline = rules, deadline

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        rules = UriRules(inner=True) if req.has_proxy() else self._rules

        def connection(host: str, **options: Any) -> http.client.HTTPConnection:
            made = http.client.HTTPConnection(host, **options)
            made._create_connection = _connector(rules, self._deadline)  # type: ignore[attr-defined]
            return made

        return self.do_open(connection, req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, rules: UriRules, deadline: _Deadline) -> None:
        super().__init__(context=ssl.create_default_context())
        self._rules, self._deadline = rules, deadline

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        tunnel = getattr(req, "_tunnel_host", None)
        rules = UriRules(inner=True) if tunnel else self._rules
        context = ssl.create_default_context()

        def connection(host: str, **options: Any) -> http.client.HTTPSConnection:
            made = http.client.HTTPSConnection(host, context=context, **options)
            made._create_connection = _connector(rules, self._deadline)  # type: ignore[attr-defined]
            return made

        return self.do_open(connection, req)


def _connector(rules: UriRules, deadline: _Deadline) -> Any:
    def connect(
        where: tuple[str, int], timeout: float = _SILENCE_S, source: Any = None
    ) -> socket.socket:
        made = socket.create_connection(where, timeout, source)
        peer = find_address(str(made.getpeername()[0]))
        if peer is not None and is_inner(peer) and not rules.inner:
            made.close()
            raise Untrusted(
                f"{where[0]} is {peer}: an address of this host or its neighbourhood",
                hint="subscribe the list where it really is",
            )
        deadline.watch(made)
        return made

    return connect
