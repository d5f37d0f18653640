"""Where a whole file comes from: a web server, or a directory that hosts share."""

from __future__ import annotations

import os
import re
import stat
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from mayfly.errors import Denied, Invalid, MayflyError, Missing, Unavailable
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

HEADERS_S = 60.0
"""How long a server may take until it begins with the file."""
WORDS = Words(
    again="run it again: what came is kept, and it goes on from there",
    elsewhere="give the URL where the file really is",
    lost="see that the file is still there",
)
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A file that begins to come."""

    read: Callable[[int], bytes]
    """Gives what is there, at most so many bytes; nothing at the end."""
    start: int
    """Where in the file it begins: what was asked for, or 0."""
    total_bytes: int | None
    """Of the whole file, as its source says."""
    validator: str
    """What the source calls this content; another content has another name. May be empty."""


class Source(Protocol):
    """A place that has one file."""

    @property
    def name(self) -> str:
        """Say where, for people."""

    def open(self, start: int, validator: str) -> AbstractContextManager[Offer]:
        """Have the file come, from ``start`` on if it is still the same, else from its begin."""


def find_source(uri: str, rules: UriRules | None = None) -> Source:
    """Give the source for a URI that was typed here, or with ``rules`` for one from elsewhere."""
    if uri.startswith("file:///") and rules is None:
        return DirectorySource(path=Path(unquote(urlsplit(uri).path)))
    try:
        check_uri(uri, UriRules(inner=True) if rules is None else rules)
    except Refused as refused:
        raise Invalid(
            f"this cannot be fetched: {refused.refusal.detail}",
            hint="write https://HOST/PATH, or file:///PATH",
        ) from refused
    return WebSource(uri=uri, rules=named_rules(uri) if rules is None else rules)


# --- the web -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSource:
    """A file of a web server."""

    uri: str
    rules: UriRules = STRICT
    headers: Mapping[str, str] = field(default_factory=dict)
    """Such as ``Authorization``; another host that it leads to never sees them."""
    silence_s: float = SILENCE_S

    @property
    def name(self) -> str:
        """Say where, for people."""
        return self.uri

    def open(self, start: int, validator: str) -> AbstractContextManager[Offer]:
        """Ask for the file, or the rest of it."""
        return self._open(start, validator, "")

    @contextmanager
    def open_part(self, start: int, end: int) -> Iterator[Offer]:
        """Ask for a part of the file; raises ``Unavailable`` when all of it comes instead."""
        with self._open(start, "", str(end - 1)) as offer:
            if offer.start != start:
                raise Unavailable(f"{self.uri} gives no parts of files", hint=WORDS.again)
            yield offer

    @contextmanager
    def _open(self, start: int, validator: str, last: str) -> Iterator[Offer]:
        with Deadline(HEADERS_S, WORDS) as deadline:
            with asking(self.uri, deadline):
                answer = self._answer(start, validator, deadline, last)
            deadline.lift()

            def read(most: int) -> bytes:
                with asking(self.uri, deadline):
                    data: bytes = answer.read1(most)
                return data

            try:
                yield _offer(self.uri, answer, start, read)
            finally:
                answer.close()

    def _answer(self, start: int, validator: str, deadline: Deadline, last: str = "") -> Any:
        try:
            return opener(self.rules, deadline).open(
                self._request(start, validator, last), timeout=self.silence_s
            )
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and start:
                # It has become shorter than what we have.
                return self._answer(0, "", deadline)
            raise _refusal(self.uri, error) from error

    def _request(self, start: int, validator: str, last: str) -> urllib.request.Request:
        request = urllib.request.Request(self.uri, headers=HEADERS)  # noqa: S310  # was checked
        for key, value in self.headers.items():
            request.add_unredirected_header(key, value)
        if start or last:
            request.add_header("Range", f"bytes={start}-{last}")
            if validator:
                request.add_header("If-Range", validator)
        return request


def _offer(uri: str, answer: Any, start: int, read: Callable[[int], bytes]) -> Offer:
    validator = _validator(answer.headers)
    if answer.status == 206:
        found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if found is None or int(found[1]) != start:
            raise Unavailable(f"{uri} answered with another part than asked for", hint=WORDS.again)
        total = None if found[3] == "*" else int(found[3])
        return Offer(read=read, start=start, total_bytes=total, validator=validator)
    length = answer.headers.get("Content-Length", "")
    known = length.isascii() and length.isdigit() and len(length) < 19
    return Offer(
        read=read, start=0, total_bytes=int(length) if known else None, validator=validator
    )


def _validator(headers: Mapping[str, str]) -> str:
    """Give the name of this very content: a weak tag is none."""
    tag = headers.get("ETag", "")
    if tag.startswith('"'):
        return tag[:512]
    return headers.get("Last-Modified", "")[:512]


def _refusal(uri: str, error: urllib.error.HTTPError) -> MayflyError:
    said = f"{uri} answered {error.code} {error.reason}"
    if error.code in (401, 403, 407):
        return Denied(said, hint="see who may fetch it there")
    if error.code in (404, 410):
        return Missing(said, hint=WORDS.lost)
    return Unavailable(said, hint=WORDS.again)


# --- a directory ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectorySource:
    """A file of this host, or of a file system that it mounts."""

    path: Path

    @property
    def name(self) -> str:
        """Say where, for people."""
        return str(self.path)

    @contextmanager
    def open(self, start: int, validator: str) -> Iterator[Offer]:
        """Open the file, and go to where the rest begins."""
        descriptor = self._descriptor()
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            os.close(descriptor)
            raise Invalid(f"{self.path} is not a file")
        with os.fdopen(descriptor, "rb", buffering=0) as opened:
            now = f"{found.st_dev}-{found.st_ino}-{found.st_size}-{found.st_mtime_ns}"
            begin = start if now == validator and start <= found.st_size else 0
            opened.seek(begin)

            def read(most: int) -> bytes:
                try:
                    return opened.read(most) or b""
                except OSError as error:
                    raise self._trouble(error) from error

            yield Offer(read=read, start=begin, total_bytes=found.st_size, validator=now)

    def _descriptor(self) -> int:
        try:
            # Not blocking: a FIFO of that name would else hold us for ever.
            return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError as error:
            raise Missing(f"there is no file {self.path}") from error
        except PermissionError as error:
            raise Denied(f"cannot read {self.path}: {error.strerror}") from error
        except OSError as error:
            raise self._trouble(error) from error

    def _trouble(self, error: OSError) -> Unavailable:
        said = f"cannot read {self.path}: {error.strerror}"
        return Unavailable(said, hint="see that its file system is there, then run it again")
