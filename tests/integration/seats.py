"""Somebody before a browser, and a little site behind it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from mayfly.server.serve import config_of, listen
from mayfly.site.people import asker_of
from mayfly.site.quota import Quotas
from tests.integration.chromium import Chromium, chromium
from tests.unit.server.sites import GROUPS, ROLES, Little, little_site


@dataclass(slots=True, kw_only=True)
class Seat:
    """Somebody before a browser, and the site behind."""

    little: Little
    window: Chromium
    url: str = ""
    port: int = 0
    _stop: contextlib.ExitStack

    def serve(self) -> None:
        """Serve over TCP, at the port of before if there was one."""
        (door,) = listen(None, f"127.0.0.1:{self.port}")
        self.port = door.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        server = uvicorn.Server(config_of(self.little.app))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[door])))
        thread.start()

        def stop() -> None:
            server.should_exit = True
            thread.join()
            door.close()

        self._stop.callback(stop)

    def gone(self) -> None:
        """Have the server stop."""
        self._stop.close()

    def sign_in(self, name: str) -> None:
        """Come in as somebody, by a link."""
        asker = asker_of(name, GROUPS[name], ROLES, "test")
        self.window.load(f"{self.url}/sign-in?code={self.little.app.state.visits.link(asker)}")
        self.window.click("main button")
        self.window.until(lambda: self.window.title.startswith("My machines"))

    def make(self, name: str) -> None:
        """Make a machine by the form."""
        self.window.load(f"{self.url}/new")
        self.window.type("#name", name)
        self.window.click("form.fields button")
        self.window.until(lambda: self.window.title.startswith(name))

    def settle(self) -> bool:
        """Let the loop go round: what was clicked may have come in just now."""
        self.little.settle(2)
        return True

    def again(self) -> bool:
        """The same, and load the page anew."""
        self.settle()
        self.window.load(f"{self.url}/machines")
        return True

    def becomes(self, state: str, *, load: str = "") -> None:
        """Wait until the page shows a state; with ``load`` it is loaded each time."""

        def there() -> bool:
            self.settle()
            if load:
                self.window.load(self.url + load)
            return self.state() == state

        self.window.until(there)

    def state(self) -> str:
        """Give the state that the page shows."""
        return self.window.text(".state")


@contextlib.contextmanager
def seat_at(
    directory: Path, *, scripts: bool = True, quotas: Quotas | None = None
) -> Iterator[Seat]:
    """Give a seat before a site beneath a directory."""
    with (
        little_site(directory, quotas) as little,
        contextlib.ExitStack() as stop,
        chromium(scripts=scripts) as window,
    ):
        seat = Seat(little=little, window=window, _stop=stop)
        seat.serve()
        yield seat
