"""One connection to the server: a unix socket, or TCP with TLS and a token."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mayfly.errors import (
    Conflict,
    Denied,
    Failed,
    Invalid,
    MayflyError,
    Missing,
    Quota,
    Unavailable,
)

TIMEOUT_S = 60.0
ANSWER_BYTES = 64 << 20
KINDS: dict[int, type[MayflyError]] = {
    400: Invalid,
    401: Denied,
    403: Denied,
    404: Missing,
    405: Invalid,
    409: Conflict,
    412: Conflict,
    429: Quota,
    503: Unavailable,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a server is."""

    socket: str = ""
    host: str = "localhost"
    port: int = 0
    tls: bool = False


def parse_address(url: str) -> Address:
    """Read ``unix:///path`` or ``https://host[:port]``, or http; raises ``Invalid``."""
    try:
        parts = urlsplit(url)
        if parts.scheme == "unix" and parts.path:
            return Address(socket=parts.path)
        if parts.scheme in ("http", "https") and parts.hostname and parts.path in ("", "/"):
            tls = parts.scheme == "https"
            return Address(host=parts.hostname, port=parts.port or (443 if tls else 80), tls=tls)
    except ValueError:
        pass
    raise Invalid(
        f"'{url[:200]}' is no address of a server",
        hint="write unix:///run/mayfly-server/server.sock or https://site.example.org",
    )


def find_token(environ: Mapping[str, str] = os.environ) -> str:
    """Find the caller's token as WLCG's bearer token discovery has it; "" when there is none."""
    if token := environ.get("BEARER_TOKEN", "").strip():
        return token
    runtime = environ.get("XDG_RUNTIME_DIR") or "/tmp"  # noqa: S108 - where the profile looks
    default = f"{runtime}/bt_u{os.geteuid()}"
    file = Path(environ.get("BEARER_TOKEN_FILE") or default)
    try:
        if file.stat().st_uid not in (os.geteuid(), 0):
            return ""
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def dial(address: Address, timeout_s: float | None = TIMEOUT_S) -> socket.socket:
    """Connect; raises ``Unavailable``."""
    with contextlib.ExitStack() as stack:
        try:
            plain = stack.enter_context(_connected(address, timeout_s))
            if address.tls:
                context = ssl.create_default_context()
                plain = context.wrap_socket(plain, server_hostname=address.host)
        except OSError as error:
            where = address.socket or f"{address.host}:{address.port}"
            raise Unavailable(
                f"no site server answers at {where}: {error.strerror or error}",
                hint="'mayfly server serve' must run on its host",
            ) from error
        stack.pop_all()
        return plain


def _connected(address: Address, timeout_s: float | None) -> socket.socket:
    if not address.socket:
        return socket.create_connection((address.host, address.port), timeout_s)
    plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        plain.settimeout(timeout_s)
        plain.connect(address.socket)
    except OSError:
        plain.close()
        raise
    return plain


class Http(http.client.HTTPConnection):
    """HTTP over whatever ``dial`` gives."""

    def __init__(self, address: Address) -> None:
        super().__init__(address.host, address.port or None, timeout=TIMEOUT_S)
        self._address = address

    def connect(self) -> None:
        """Connect as the address says."""
        self.sock = dial(self._address)


def answer_of(response: http.client.HTTPResponse) -> dict[str, Any]:
    """Read an answer; raises what the server answered."""
    data = response.read(ANSWER_BYTES)
    try:
        words = json.loads(data) if data else {}
    except ValueError as error:
        raise Failed(f"the server answered {response.status} with what is no JSON") from error
    if not isinstance(words, dict):
        raise Failed("the server answered with what is no object")
    if response.status >= 400:
        kind = KINDS.get(response.status, Failed)
        message = str(words.get("detail") or f"the server answered {response.status}")
        raise kind(message, hint=str(words.get("hint", "")))
    return words
