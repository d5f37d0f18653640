"""One request to a registry, answered in a few bytes: everything but the blobs."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mayfly.errors import Denied, Failed, MayflyError, Missing, Quota, Unavailable, Untrusted
from mayfly.images.lists.rules import Refused
from mayfly.images.lists.uris import UriRules, check_uri
from mayfly.images.transfer.web import HEADERS, Deadline, Words, asking, opener

ANSWER_MOST = 4 << 20
"""Bytes of an answer: also the largest manifest that registries take."""
ANSWER_S = 60.0
UPLOAD_S = 600.0
"""A registry checks what it was sent before it answers."""
WORDS = Words(
    again="try again later",
    elsewhere="name the registry that really has it",
    lost="see that the registry is still there",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    """Never sent on to another host."""
    body: bytes | Iterable[bytes] | None = None
    """With another thing than bytes, ``Content-Length`` must be among the headers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer, whatever it says."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """Read the body as one JSON object."""
        try:
            table = json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise Untrusted(f"{self.url} answered with something that is not JSON") from error
        if not isinstance(table, dict):
            raise Untrusted(f"{self.url} answered with JSON that is no object")
        return table

    def error(self) -> MayflyError:
        """Give the error for an answer that is a refusal."""
        said = f"{self.url} answered {self.status}{self._words()}"
        if self.status in (401, 403):
            return Denied(said, hint="log in there, e.g. with 'skopeo login', or ask its owner")
        if self.status == 404:
            return Missing(said, hint="see that the registry has it, under this name and tag")
        if self.status == 429 or self.status >= 500:
            return Unavailable(said, hint=WORDS.again)
        if self.status in (413, 507):
            return Quota(said, hint="its registry takes no more, or nothing so large")
        return Failed(said)

    def _words(self) -> str:
        """Give what the registry says about it, in the form that the specification has."""
        try:
            first = json.loads(self.body)["errors"][0]
            words = f"{first['code']}: {first.get('message', '')}"
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
            return ""
        return f" ({words[:200]})"


def send(ask: Ask, rules: UriRules) -> Reply:
    """Ask, and give the answer; raises ``Unavailable`` when there is none."""
    limit = ANSWER_S if ask.body is None else UPLOAD_S
    try:
        check_uri(ask.url, rules)
    except Refused as refused:
        raise Untrusted(
            f"will not ask {ask.url[:300]}: {refused.refusal.detail}", hint=WORDS.elsewhere
        ) from refused
    with Deadline(limit, WORDS) as deadline, asking(ask.url, deadline):
        if ask.body is not None:
            deadline.lift()  # how long it takes depends on how much there is to send
        try:
            answer = opener(rules, deadline).open(_request(ask), timeout=limit)
        except urllib.error.HTTPError as error:
            return _reply(ask, error.code, error.headers, error)
        return _reply(ask, answer.status, answer.headers, answer)


def _request(ask: Ask) -> urllib.request.Request:
    data: Any = ask.body
    request = urllib.request.Request(  # noqa: S310  # was checked
        ask.url, headers=HEADERS, data=data, method=ask.method
    )
    for key, value in ask.headers.items():
        request.add_unredirected_header(key, value)
    return request


def _reply(ask: Ask, status: int, headers: Any, answer: Any) -> Reply:
    with answer:
        try:
            body = answer.read(ANSWER_MOST + 1)
        except (http.client.IncompleteRead, AttributeError) as error:
            raise Unavailable(f"{ask.url} broke off its answer", hint=WORDS.again) from error
    if len(body) > ANSWER_MOST:
        raise Untrusted(f"{ask.url} answered with more than {ANSWER_MOST} bytes")
    return Reply(url=ask.url, status=status, headers=headers, body=body)
