"""The head of a request to our proxy: read strictly, written anew, never passed on as it came."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mayfly.engine.network.rules import Address, canonical_name, parse_address
from mayfly.errors import Invalid

HEAD_LIMIT = 1 << 16
END_OF_HEAD = b"\r\n\r\n"

_LINE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_FIRST = re.compile(rb"([A-Z]{1,20}) ([\x21-\x7e]+) HTTP/1\.[01]")
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_URL = re.compile(r"http://([^/?#]*)(/[^?#]*)?(\?[^#]*)?", re.IGNORECASE)
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z._-]{1,255})(?::([0-9]{1,5}))?")

# Of one connection, not of the message; a proxy never passes them on.
_HOP = frozenset(
    (
        *(b"connection", b"proxy-connection", b"keep-alive", b"te", b"trailer", b"upgrade"),
        *(b"transfer-encoding", b"proxy-authorization", b"proxy-authenticate", b"host"),
    )
)

Fields = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a client wants."""

    host: str | Address
    port: int
    head: bytes
    """To be sent to the host; empty for CONNECT: what follows is a tunnel."""
    body_bytes: int
    """Exactly so many follow."""

    @property
    def target(self) -> str:
        """Give host and port, for messages."""
        shown = f"[{self.host}]" if ":" in str(self.host) else str(self.host)
        return f"{shown}:{self.port}"


def parse_request(head: bytes) -> Request:
    """Read a head that ends with its empty line; raises ``Invalid`` on any doubt about its meaning.

    What two parsers could read differently is refused: that is how requests are smuggled.
    """
    lines = head.removesuffix(END_OF_HEAD).split(b"\r\n")
    if not all(map(_LINE.fullmatch, lines)):
        raise Invalid("the request has control characters in its head")
    first = _FIRST.fullmatch(lines[0])
    if first is None:
        raise Invalid("the request's first line is not METHOD TARGET HTTP/1.1")
    method, target = first[1], first[2].decode("ascii")
    fields = [_field(line) for line in lines[1:]]
    body_bytes = _body_bytes(fields)
    if method == b"CONNECT":
        host, port = _authority(target, default_port=0)
        if body_bytes:
            raise Invalid("CONNECT has no body")
        return Request(host=host, port=port, head=b"", body_bytes=0)
    url = _URL.fullmatch(target)
    if url is None:
        raise Invalid(
            f"'{target[:80]}' is no http:// address", hint="use CONNECT for anything but HTTP"
        )
    host, port = _authority(url[1], default_port=80)
    path = (url[2] or "/") + (url[3] or "")
    words = [method + b" " + path.encode("ascii") + b" HTTP/1.1", b"Host: " + url[1].encode()]
    words += [name + b": " + value for name, value in _passed_on(fields)]
    words.append(b"Connection: close")
    return Request(
        host=host, port=port, head=b"\r\n".join(words) + END_OF_HEAD, body_bytes=body_bytes
    )


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    # A name with a space before the colon, and a folded line, fail here too.
    if not colon or not _NAME.fullmatch(name):
        raise Invalid("the request has a malformed header field")
    return name, value.strip(b" \t")


def _body_bytes(fields: Fields) -> int:
    names = [name.lower() for name, _ in fields]
    if b"transfer-encoding" in names:
        raise Invalid(
            "a request body without Content-Length is not passed on",
            hint="send its length, or use https",
        )
    lengths = [value for name, value in fields if name.lower() == b"content-length"]
    if not lengths:
        return 0
    if len(lengths) > 1 or not re.fullmatch(rb"[0-9]{1,15}", lengths[0]):
        raise Invalid("the request has no clear Content-Length")
    return int(lengths[0])


def _authority(text: str, *, default_port: int) -> tuple[str | Address, int]:
    match = _AUTHORITY.fullmatch(text)
    port = int(match[2] or default_port) if match else 0
    if match is None or not 0 < port < 1 << 16:
        raise Invalid(f"'{text[:80]}' is no host and port")
    address = parse_address(match[1])
    if address is not None:
        return address, port
    name = canonical_name(match[1])
    if not name:
        raise Invalid(f"'{match[1][:80]}' is no host name")
    return name, port


def _passed_on(fields: Fields) -> Fields:
    named = b",".join(value for name, value in fields if name.lower() == b"connection")
    dropped = _HOP | {word.strip(b" \t").lower() for word in named.split(b",")}
    # A client must not hide the length of its body from the host.
    dropped -= {b"content-length"}
    return [(name, value) for name, value in fields if name.lower() not in dropped]


def refusal(status: int, reason: str) -> bytes:
    """Give a whole answer that says why a request was not passed on."""
    body = f"mayfly: {reason}\n".encode()
    head = (
        f"HTTP/1.1 {status} Refused\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
