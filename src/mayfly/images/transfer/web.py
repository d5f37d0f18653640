"""Ask by HTTP(S) a server that may be slow, wrong or hostile.

A server that redirects to this host, or to what lies beside it, is refused: root does the asking.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from mayfly import __version__
from mayfly.errors import Unavailable, Untrusted
from mayfly.images.lists.rules import Refused
from mayfly.images.lists.uris import UriRules, check_uri, find_address, is_inner

SILENCE_S = 20.0
"""A connection on which nothing comes for so long is given up."""
REDIRECTS_MOST = 5
HEADERS = {"User-Agent": f"mayfly/{__version__}", "Accept": "*/*"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What is said to whom something does not come."""

    again: str
    """What happens next, when it may come later."""
    elsewhere: str
    """What to do when the server leads to a place where we do not go."""
    lost: str
    """What to do when the server has no such thing."""


class Deadline:
    """Ends all that has to do with one server when its time is up, however it keeps us waiting."""

    def __init__(self, seconds: float, words: Words) -> None:
        self.words = words
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._end)
        self._seconds = seconds
        self._over = False

    def __enter__(self) -> Deadline:
        self._timer.daemon = True
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.lift()

    def lift(self) -> None:
        """Wait as long as it takes from now on."""
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
                f"{url} did not answer within {self._seconds:g} s", hint=self.words.again
            )

    def _end(self) -> None:
        self._over = True
        for each in self._sockets:
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # it was closed meanwhile


@contextmanager
def asking(url: str, deadline: Deadline) -> Iterator[None]:
    """Say what went wrong with whom."""
    words = deadline.words
    try:
        yield
    except Refused as refused:
        raise Untrusted(
            f"{url} leads elsewhere: {refused.refusal.detail}", hint=words.elsewhere
        ) from refused
    except urllib.error.HTTPError as error:
        error.close()
        raise Unavailable(f"{url} answered {error.code} {error.reason}", hint=words.lost) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        deadline.check(url)
        reason = getattr(error, "reason", None) or error
        raise Unavailable(f"cannot fetch {url}: {reason}", hint=words.again) from error


def named_rules(url: str) -> UriRules:
    """Give the rules for a URL that somebody here typed.

    Who names this very host means it: then its own redirects may as well.
    """
    return UriRules(inner=is_inner_host(urlsplit(url).hostname or ""))


def is_inner_host(host: str) -> bool:
    """Tell whether a host is written as one that is this host or beside it."""
    address = find_address(host)
    return is_inner(address) if address else host.lower().rstrip(".") == "localhost"


# --- connections that look where they go ---------------------------------------------------------
# The hook _create_connection is where http.client, and nothing before it, knows the address.

Connector = Callable[..., socket.socket]


def opener(rules: UriRules, deadline: Deadline) -> urllib.request.OpenerDirector:
    """Give what opens requests, and refuses to go where the rules forbid it."""
    return urllib.request.build_opener(
        _Http(rules, deadline), _Https(rules, deadline), Redirects(rules, deadline.words)
    )


class Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a few redirects, each to where the first request might have gone too."""

    max_redirections = REDIRECTS_MOST
    max_repeats = 2

    def __init__(self, rules: UriRules, words: Words) -> None:
        self._rules, self._words = rules, words

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Give the request that goes on elsewhere."""
        check_uri(newurl, self._rules)
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise Untrusted(
                f"{req.full_url} leads from https to {newurl[:200]}", hint=self._words.elsewhere
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Http(urllib.request.HTTPHandler):
    def __init__(self, rules: UriRules, deadline: Deadline) -> None:
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
    def __init__(self, rules: UriRules, deadline: Deadline) -> None:
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


def _connector(rules: UriRules, deadline: Deadline) -> Connector:
    def connect(
        where: tuple[str, int], timeout: float = SILENCE_S, source: Any = None
    ) -> socket.socket:
        made = socket.create_connection(where, timeout, source)
        peer = find_address(str(made.getpeername()[0]))
        if peer is not None and is_inner(peer) and not rules.inner:
            made.close()
            raise Untrusted(
                f"{where[0]} is {peer}: an address of this host or its neighbourhood",
                hint=deadline.words.elsewhere,
            )
        deadline.watch(made)
        return made

    return connect
