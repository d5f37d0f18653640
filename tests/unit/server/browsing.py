"""A browser of the plainest kind: cookies, forms, no scripts; over the socket of a little site."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urlencode

from mayfly.client.connection import Http, parse_address
from tests.unit.server.sites import Answer, Little

NEW = {
    "image": "debian-12",
    "name": "build1",
    "cpus": "1",
    "memory_mib": "512",
    "network": "none",
    "for": "1d",
    "ssh_keys": "",
}
FORM = "application/x-www-form-urlencoded"


class _Inputs(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        words = dict(attrs)
        if tag == "input" and words.get("type") == "hidden":
            self.values.setdefault(words["name"] or "", words["value"] or "")


def hidden(page: Answer) -> dict[str, str]:
    """Give the hidden fields of a page; the first of each name."""
    parser = _Inputs()
    parser.feed(page.data.decode())
    return parser.values


@dataclass(slots=True, kw_only=True)
class Browser:
    """Somebody's browser."""

    little: Little
    cookies: dict[str, str] = field(default_factory=dict)

    def get(self, path: str, **headers: str) -> Answer:
        """Load a page; redirects are not followed."""
        return self._ask("GET", path, None, headers)

    def post(self, path: str, fields: dict[str, str] | bytes, **headers: str) -> Answer:
        """Send a form."""
        data = fields if isinstance(fields, bytes) else urlencode(fields).encode()
        return self._ask("POST", path, data, {"Content-Type": FORM, **headers})

    def sign_in(self, name: str) -> Answer:
        """Come in by a link."""
        link = self.little.ask(name, "POST", "/v1/web/links").words["url"]
        path = link.removeprefix("http://site.test")
        return self.post("/sign-in", hidden(self.get(path)))

    @property
    def csrf(self) -> str:
        """What forms of this browser's session carry."""
        return hidden(self.get("/new"))["csrf"]

    def _ask(self, method: str, path: str, data: bytes | None, headers: dict[str, str]) -> Answer:
        given = {key.replace("_", "-"): value for key, value in headers.items()}
        given["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        http = Http(parse_address(f"unix://{self.little.socket}"))
        with contextlib.closing(http):
            http.request(method, path, data, given)
            got = http.getresponse()
            for line in got.headers.get_all("set-cookie", []):
                self._keep(line)
            return Answer(status=got.status, headers=dict(got.getheaders()), data=got.read())

    def _keep(self, line: str) -> None:
        name, _, value = line.partition(";")[0].partition("=")
        assert "HttpOnly" in line
        assert "SameSite=lax" in line
        if re.search(r"Max-Age=0\b", line):
            self.cookies.pop(name, None)
        else:
            self.cookies[name] = value


def made(browser: Browser, **more: str) -> str:
    """Make a machine by the form; gives the path of its page."""
    fields = {**hidden(browser.get("/new")), **NEW, **more}
    where = browser.post("/new", fields).headers["location"]
    return where.partition("?")[0]
