"""A whole server in one process: the fake place, SQLite, the loop stepped by hand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from mayfly.client.connection import Http, parse_address
from mayfly.providers.fake import FakePlace
from mayfly.reconcile.loop import Reconciler
from mayfly.server.app import make_app
from mayfly.server.auth import Door, Unknown
from mayfly.server.serve import config_of, listen
from mayfly.server.site import Site
from mayfly.server.tokens import Tokens
from mayfly.site.lease import Lease
from mayfly.site.people import Asker, Roles, asker_of
from mayfly.site.quota import Amounts, Quotas
from mayfly.store.database import Database
from tests.unit.store.databases import sqlite_at

ROLES = Roles(
    operators=frozenset({"olga"}),
    auditors=frozenset({"@audit"}),
    managers={"physics": frozenset({"martin"})},
)
GROUPS = {
    "alice": ("physics",),
    "bob": ("chemistry",),
    "martin": ("physics",),
    "olga": ("ops",),
    "ada": ("audit",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the server answered."""

    status: int
    headers: dict[str, str]
    data: bytes

    @property
    def words(self) -> Any:
        """The JSON in it."""
        return json.loads(self.data)


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class NamedDoor(Door):
    """Believes the name in a header: what recognises people is tested elsewhere."""

    __slots__ = ()

    def asker(self, request: Any) -> Asker:
        name = request.headers.get("x-test-user", "")
        if name not in GROUPS:
            raise Unknown("nobody")
        return asker_of(name, GROUPS[name], self.roles, "test")


@dataclass(slots=True, kw_only=True)
class Little:
    """A site, its loop, and clients of its application."""

    database: Database
    place: FakePlace
    site: Site
    app: FastAPI
    clock: Clock
    socket: Path
    reminded: list[Lease] = field(default_factory=list)

    def ask(self, name: str, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """Ask as somebody, over a socket."""
        given = {"x-test-user": name, **{key.replace("_", "-"): v for key, v in headers.items()}}
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        http = Http(parse_address(f"unix://{self.socket}"))
        with contextlib.closing(http):
            http.request(method, path, data, {"Content-Type": "application/json", **given})
            got = http.getresponse()
            return Answer(status=got.status, headers=dict(got.getheaders()), data=got.read())

    def settle(self, rounds: int = 12) -> None:
        """Let the loop go round until nothing changes any more."""
        for _ in range(rounds):
            with ThreadPoolExecutor(4) as pool:
                self.site.reconciler.round(pool)


@contextlib.contextmanager
def little_site(
    directory: Path, quotas: Quotas | None = None, tokens: Tokens | None = None
) -> Iterator[Little]:
    """Put a site together beneath a directory, and serve it from a thread."""
    database = sqlite_at(directory)
    place = FakePlace(directory / "fake")
    clock = Clock()
    reminded: list[Lease] = []
    loop = Reconciler(database=database, place=place, clock=clock, remind=reminded.append)
    site = Site(
        database=database,
        place=place,
        reconciler=loop,
        quotas=quotas or Quotas(user=Amounts(machines=5)),
        clock=clock,
        wake=loop.wake,
    )
    app = make_app(site, NamedDoor(roles=ROLES, tokens=tokens or Tokens()), "http://site.test")
    # A socket's path is short; pytest's are not.
    with tempfile.TemporaryDirectory() as short, served(app, Path(short) / "s") as path:
        yield Little(
            database=database,
            place=place,
            site=site,
            app=app,
            clock=clock,
            socket=path,
            reminded=reminded,
        )
    database.close()


@contextlib.contextmanager
def served(app: FastAPI, path: Path) -> Iterator[Path]:
    """Serve an application at a unix socket."""
    (door,) = listen(path, "")
    server = uvicorn.Server(config_of(app))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[door])))
    thread.start()
    try:
        yield path
    finally:
        server.should_exit = True
        thread.join()
        door.close()
