"""Send a blob to a registry, piece by piece, and on after a break."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import urljoin

from mayfly.errors import Failed, Unavailable
from mayfly.images.registry.client import Descriptor, Registry
from mayfly.images.registry.requests import WORDS, Ask, Reply
from mayfly.images.transfer.pace import Meter

PIECE = 8 << 20
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,18})")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    """An upload that the registry has begun."""

    url: str
    at: int
    """How much of it is there."""


def push_blob(
    registry: Registry,
    descriptor: Descriptor,
    file: BinaryIO,
    meter: Meter,
    *,
    retries: int = 3,
    pause: Callable[[int], None] = lambda failures: None,
) -> bool:
    """Send a blob unless the registry has it; tells whether it was sent.

    ``pause`` is called before each attempt to go on. Raises ``Unavailable`` after so many that
    brought nothing.
    """
    meter.begin(0, descriptor.size_bytes)
    if registry.has_blob(descriptor.digest):
        return False
    session = _begin(registry)
    failures = 0
    while session.at < descriptor.size_bytes:
        try:
            session = _patch(registry, session, file, meter)
            failures = 0
        except Unavailable:
            failures += 1
            if failures > retries:
                raise
            pause(failures)
            session = _look(registry, session)
            meter.begin(session.at, descriptor.size_bytes)
    _end(registry, session, descriptor)
    return True


def _begin(registry: Registry) -> _Session:
    reply = registry.ask(Ask(method="POST", url="/blobs/uploads/", body=b""))
    if reply.status != 202:
        raise reply.error()
    return _Session(url=_location(reply), at=0)


def _patch(registry: Registry, session: _Session, file: BinaryIO, meter: Meter) -> _Session:
    file.seek(session.at)
    data = file.read(PIECE)
    if not data:
        raise Failed("the file became shorter while it was sent")
    last = session.at + len(data) - 1
    headers = {
        "Content-Type": "application/octet-stream",
        "Content-Length": str(len(data)),
        "Content-Range": f"{session.at}-{last}",
    }
    reply = registry.ask(Ask(method="PATCH", url=session.url, headers=headers, body=data))
    if reply.status != 202:
        if reply.status == 416:
            raise Unavailable(f"{reply.url} has another part than expected", hint=WORDS.again)
        raise reply.error()
    meter.add(len(data))
    return _Session(url=_location(reply), at=last + 1)


def _look(registry: Registry, session: _Session) -> _Session:
    """Ask how much of it has arrived; an upload that the registry forgot begins anew."""
    try:
        reply = registry.ask(Ask(method="GET", url=session.url))
    except Unavailable:
        return session  # the next attempt tells
    if reply.status == 404:
        return _begin(registry)
    if reply.status not in (202, 204):
        raise reply.error()
    found = _RANGE.fullmatch(reply.headers.get("Range", ""))
    # The specification's "0-0" is one byte, and registries send it for none.
    at = int(found[1]) + 1 if found and found[1] != "0" else 0
    return _Session(url=_location(reply, session.url), at=at)


def _end(registry: Registry, session: _Session, descriptor: Descriptor) -> None:
    joint = "&" if "?" in session.url else "?"
    reply = registry.ask(
        Ask(
            method="PUT",
            url=f"{session.url}{joint}digest={descriptor.digest}",
            headers={"Content-Type": "application/octet-stream"},
            body=b"",
        )
    )
    if reply.status not in (201, 204):
        raise reply.error()


def _location(reply: Reply, known: str = "") -> str:
    """Give where it goes on; the address may be relative."""
    place = reply.headers.get("Location", "") or known
    if not place:
        raise Failed(f"{reply.url} does not say where the upload goes on")
    return urljoin(reply.url, place)
