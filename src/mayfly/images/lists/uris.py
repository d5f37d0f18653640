"""Where images and lists may be fetched from: by HTTP(S), and not from this host itself.

Whoever writes a list would else make every site ask its own inner services for "images".
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from mayfly.images.lists.rules import Refused, Rule

LONGEST = 2048
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_.])?")
_INNER_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"})


@dataclass(frozen=True, slots=True, kw_only=True)
class UriRules:
    """What a site allows."""

    schemes: tuple[str, ...] = ("https", "http")
    inner: bool = False
    """Whether loopback and link-local addresses may be asked."""


STRICT = UriRules()
ANY = UriRules(schemes=("https", "http", "file", "docker", "oci"), inner=True)
"""For what is only written down, and never fetched on this word."""


def check_uri(uri: str, rules: UriRules = STRICT) -> str:
    """Give a URI that may be asked; raises ``Refused``."""
    if not uri or len(uri) > LONGEST or not all("!" <= letter <= "~" for letter in uri):
        raise _refused(uri, f"it is not 1 to {LONGEST} letters of ASCII without spaces")
    try:
        parts = urlsplit(uri)
        host, user, _ = parts.hostname, parts.username, parts.port
    except ValueError as error:
        raise _refused(uri, str(error)) from error
    if parts.scheme.lower() not in rules.schemes:
        raise _refused(uri, f"its scheme is not {' or '.join(rules.schemes)}")
    if user is not None or "\\" in uri:
        raise _refused(uri, "it has a user or a backslash")
    if parts.scheme.lower() != "file" and not host:
        raise _refused(uri, "it names no host")
    if host and not rules.inner:
        _check_host(uri, host)
    return uri


def _check_host(uri: str, host: str) -> None:
    address = find_address(host)
    if address is not None:
        if is_inner(address):
            raise _refused(uri, f"{address} is an address of this host or its neighbourhood")
        return
    name = host.lower().rstrip(".")
    if not _HOST.fullmatch(host):
        raise _refused(uri, "its host is no name")
    if name in _INNER_NAMES or name.endswith(".localhost"):
        raise _refused(uri, f"{host} is this host")


def find_address(host: str) -> Address | None:
    """Give the address that a host is written as, in any way that a resolver would accept."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        # 127.1, 0x7f000001 and 2130706433 are addresses too.
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):
        return None


def is_inner(address: Address) -> bool:
    """Tell whether an address is this host's own or reaches no further than its network link."""
    inner = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None) or address
    return bool(
        inner.is_loopback
        or inner.is_link_local
        or inner.is_unspecified
        or inner.is_multicast
        or int(inner) == (1 << 32) - 1
        or (isinstance(inner, ipaddress.IPv4Address) and int(inner) >> 24 == 0)
    )


def _refused(uri: str, why: str) -> Refused:
    return Refused(Rule.URI, f"{uri[:200]!r}: {why}")
