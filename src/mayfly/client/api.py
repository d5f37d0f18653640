"""The server's requests as methods, its answers as frozen values."""

from __future__ import annotations

import http.client
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from mayfly.client.connection import Http, answer_of, find_token, parse_address
from mayfly.errors import Failed, Unavailable

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Somebody's right to a machine."""

    id: str
    name: str
    owner: str
    group: str
    purpose: str
    image: str
    cpus: int
    memory_mib: int
    network: str
    state: str
    wanted: str
    reason: str
    machine: str
    host_keys: list[str]
    created_at: datetime
    starts_at: datetime
    expires_at: datetime
    ended_at: datetime | None
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened."""

    id: str
    at: datetime
    kind: str
    lease: str
    owner: str
    group: str
    actor: str
    source: str
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image that machines can be had of."""

    name: str
    pin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Me:
    """Who the server takes one for."""

    name: str
    groups: list[str]
    manages: list[str]
    roles: list[str]
    held: Mapping[str, int]
    quota: Mapping[str, int]


class Client:
    """A site server. Not for several threads at once."""

    def __init__(self, url: str, *, token: str | None = None) -> None:
        self.address = parse_address(url)
        # The kernel says who is at the other end of a socket.
        found = "" if self.address.socket else find_token()
        self.token = found if token is None else token
        self._http = Http(self.address)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._http.close()

    # --- requests --------------------------------------------------------------------------------

    def create(self, image: str, *, key: str | None = None, **wish: Any) -> Lease:
        """Ask for a machine; ``wish`` as ``POST /v1/leases`` has it, times as ``datetime``.

        Sent again after a lost answer it still makes one: each call has a key of its own.
        """
        headers = {"Idempotency-Key": key or secrets.token_hex(16)}
        body = {"image": image, **{name: _plain(value) for name, value in wish.items()}}
        return _read(Lease, self._ask("POST", "/v1/leases", body, headers))

    def leases(self, *, ended: bool = False) -> Iterator[Lease]:
        """Give the leases that one sees, newest first."""
        cursor = ""
        while True:
            query = {"ended": str(ended).lower(), **({"cursor": cursor} if cursor else {})}
            page = self._ask("GET", f"/v1/leases?{urlencode(query)}")
            yield from (_read(Lease, item) for item in page["items"])
            cursor = page.get("next") or ""
            if not cursor:
                return

    def lease(self, word: str) -> Lease:
        """Give one by its id, or one of one's own by its name; raises ``Missing``."""
        return _read(Lease, self._ask("GET", _path(word)))

    def extend(self, word: str, expires_at: datetime) -> Lease:
        """Move a lease's end."""
        return _read(Lease, self._ask("PATCH", _path(word), {"expires_at": _plain(expires_at)}))

    def want(self, word: str, wanted: str) -> Lease:
        """Have a lease's machine ``running`` or ``suspended``."""
        return _read(Lease, self._ask("PATCH", _path(word), {"wanted": wanted}))

    def delete(self, word: str) -> Lease:
        """End a lease and its machine."""
        return _read(Lease, self._ask("DELETE", _path(word)))

    def images(self) -> list[Image]:
        """Give the images that machines can be had of."""
        return [_read(Image, item) for item in self._ask("GET", "/v1/images")["items"]]

    def me(self) -> Me:
        """Give who the server takes one for, and what one has."""
        return _read(Me, self._ask("GET", "/v1/me"))

    def events(self, *, cursor: str = "", lease: str = "") -> list[Event]:
        """Give what happened after the event ``cursor``, oldest first, a page at most."""
        given = {"cursor": cursor, "lease": lease}
        query = urlencode({name: value for name, value in given.items() if value})
        page = self._ask("GET", f"/v1/events?{query}")
        return [_read(Event, item) for item in page["items"]]

    def sign_in_link(self) -> str:
        """Give a link that signs the caller in to the web page, once, within ten minutes."""
        return str(self._ask("POST", "/v1/web/links")["url"])

    def headers(self) -> dict[str, str]:
        """Give the headers that say who asks."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        more: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        headers = {**self.headers(), "Accept": "application/json", **(more or {})}
        data = None
        if body is not None:
            data = json.dumps({name: v for name, v in body.items() if v is not None}).encode()
            headers["Content-Type"] = "application/json"
        for last in (False, True):
            try:
                self._http.request(method, path, data, headers)
                return answer_of(self._http.getresponse())
            except (http.client.HTTPException, OSError) as error:
                # A connection that was kept may have been closed meanwhile; nothing is done twice.
                self._http.close()
                if last:
                    raise Unavailable(f"the site server broke off: {error}") from error
        raise AssertionError("unreachable")


def _path(word: str) -> str:
    return f"/v1/leases/{quote(word, safe='')}"


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value


def _read(kind: type[T], words: Mapping[str, Any]) -> T:
    """Make a value of an answer; what a later server adds is left out. Raises ``Failed``."""
    try:
        names = [item.name for item in fields(kind)]  # type: ignore[arg-type]
        return kind(**{name: _value(name, words[name]) for name in names})
    except (KeyError, TypeError, ValueError) as error:
        raise Failed(f"the server's answer is no {kind.__name__.lower()}: {error}") from error


def _value(name: str, value: Any) -> Any:
    timed = name == "at" or name.endswith("_at")
    return datetime.fromisoformat(value) if timed and value is not None else value
