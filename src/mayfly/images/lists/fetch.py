"""Fetch a signed list, a small file, from a server that may be slow, wrong or hostile."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mayfly.errors import Invalid, Unavailable, Untrusted
from mayfly.images.lists.check import MESSAGE_MOST
from mayfly.images.lists.rules import Refused
from mayfly.images.lists.uris import STRICT, UriRules, check_uri
from mayfly.images.transfer.web import (
    HEADERS,
    SILENCE_S,
    Deadline,
    Words,
    asking,
    named_rules,
    opener,
)

DEADLINE_S = 60.0
_CHUNK = 1 << 16
WORDS = Words(
    again="the next update asks again",
    elsewhere="subscribe the list where it really is",
    lost="see that the list is still there",
)


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
    with Deadline(deadline_s, WORDS) as deadline, asking(url, deadline):
        request = urllib.request.Request(url, headers=HEADERS)  # noqa: S310  # check_url was here
        with opener(named_rules(url), deadline).open(request, timeout=SILENCE_S) as answer:
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


def _body(answer: Any, url: str, most: int, deadline: Deadline) -> bytes:
    data = bytearray()
    while chunk := answer.read1(_CHUNK):
        data += chunk
        _check_bound(len(data), url, most)
    deadline.check(url)
    promised = answer.headers.get("Content-Length", "")
    if promised.isascii() and promised.isdigit() and int(promised) != len(data):
        raise Unavailable(f"{url} ended after {len(data)} of {promised} bytes", hint=WORDS.again)
    return bytes(data)


def _check_bound(length: int, where: str, most: int) -> None:
    if length > most:
        raise Untrusted(
            f"{where} has more than {most} bytes: that is no image list",
            hint="see that the URL is that of a signed list",
        )
