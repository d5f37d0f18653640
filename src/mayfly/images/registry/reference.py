"""Names of what is in a registry: ``HOST[:PORT]/NAME[:TAG][@sha256:DIGITS]``, as docker has."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from mayfly.errors import Invalid
from mayfly.images.transfer.digest import Digest, parse_digest
from mayfly.images.transfer.web import is_inner_host

SCHEME = "docker://"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_HOST = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?"
)
_HUB, _HUB_API = "docker.io", "registry-1.docker.io"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """One thing in a registry."""

    host: str
    """With its port, if that is not the usual one."""
    name: str
    tag: str = "latest"
    digest: Digest | None = None
    """What it must be, whatever the tag means by now."""

    def __str__(self) -> str:
        pin = f"@{self.digest}" if self.digest else f":{self.tag}"
        return f"{self.host}/{self.name}{pin}"

    @property
    def point(self) -> str:
        """Give what the registry is asked for: the digest, or else the tag."""
        return str(self.digest) if self.digest else self.tag

    @property
    def api_host(self) -> str:
        """Give the host that answers."""
        return _HUB_API if self.host == _HUB else self.host

    @property
    def is_inner(self) -> bool:
        """Tell whether the registry is on this host, or beside it."""
        return is_inner_host(urlsplit(f"//{self.host}").hostname or "")

    def pinned(self, digest: Digest) -> Reference:
        """Give the same, as it is now and not otherwise."""
        return replace(self, digest=digest)


def parse_reference(text: str) -> Reference:
    """Read a reference, with or without ``docker://``; raises ``Invalid``."""
    rest = text.removeprefix(SCHEME)
    rest, at, pin = rest.partition("@")
    host, name, tag = _split(rest)
    if not _is_host(host) or not _NAME.fullmatch(name) or len(name) > 255:
        raise _bad(text)
    if not _TAG.fullmatch(tag):
        raise _bad(text)
    digest = parse_digest(pin) if at else None
    return Reference(host=host, name=name, tag=tag, digest=digest)


def _split(rest: str) -> tuple[str, str, str]:
    """Part a reference; what does not look like a host is a name in Docker's own registry."""
    first, slash, others = rest.partition("/")
    is_host = slash and ("." in first or ":" in first or first == "localhost")
    host, path = (first, others) if is_host else (_HUB, rest)
    name, colon, tag = path.partition(":")
    if host == _HUB and "/" not in name:
        name = f"library/{name}"
    return host, name, tag if colon else "latest"


def _is_host(host: str) -> bool:
    if not _HOST.fullmatch(host):
        return False
    try:
        return urlsplit(f"//{host}").port != 0
    except ValueError:
        return False


def _bad(text: str) -> Invalid:
    return Invalid(
        f"'{text[:300]}' names nothing in a registry",
        hint="write it as docker://HOST[:PORT]/NAME:TAG or docker://HOST/NAME@sha256:DIGITS",
    )
