"""Who looks at a page: the session in the cookie, and the proof that a form is of our making."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request, Response

from mayfly.errors import Denied
from mayfly.server.auth import Unknown
from mayfly.server.site import Site
from mayfly.server.web.form import Fields
from mayfly.site.people import Asker, Roles, asker_of
from mayfly.store import passes
from mayfly.store.passes import Pass, PassKind

LINK_S = 600.0
SESSION_S = 12 * 3600.0
THEMES = ("auto", "light", "dark")
SECRET_CHARACTERS = 43
"""Of 32 random bytes in base64, without padding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visits:
    """Sessions of browsers, and links that begin them."""

    site: Site
    roles: Roles
    url: str = ""
    """The address that browsers know the site by, without a path; empty: not known."""

    @property
    def secure(self) -> bool:
        """Whether cookies travel over TLS only."""
        return self.url.startswith("https://")

    @property
    def cookie(self) -> str:
        """The session's cookie; the prefix keeps other hosts of the domain from setting it."""
        return f"{'__Host-' if self.secure else ''}mayfly"

    @property
    def before(self) -> str:
        """The cookie of somebody who is not signed in yet."""
        return f"{self.cookie}-before"

    def link(self, asker: Asker) -> str:
        """Give the secret of a link that signs somebody in, once."""
        with self.site.database.writing() as connection:
            return passes.issue(connection, PassKind.LINK, self._pass(asker, LINK_S))

    def _pass(self, asker: Asker, life_s: float) -> Pass:
        now = self.site.clock()
        return Pass(owner=asker.name, groups=asker.groups, created_at=now, expires_at=now + life_s)

    def whose(self, secret: str) -> str:
        """Give whom a link would sign in; empty: nobody, or no more."""
        with self.site.database.reading() as connection:
            found = passes.find(connection, PassKind.LINK, secret, self.site.clock())
        return "" if found is None else found.owner

    def by_link(self, secret: str) -> str:
        """Begin a session with a link's secret; gives the session's. Raises ``Denied``."""
        now = self.site.clock()
        with self.site.database.writing() as connection:
            found = passes.redeem(connection, secret, now)
            if found is None:
                raise Denied(
                    "this link was used already, or its time is over",
                    hint="'mayfly web login' prints a new one",
                )
            asker = asker_of(found.owner, found.groups, self.roles, "web")
            return passes.issue(connection, PassKind.SESSION, self._pass(asker, SESSION_S))

    def by_token(self, name: str, groups: tuple[str, ...], life_s: float) -> str:
        """Begin a session for a token's bearer that lives no longer than the token."""
        asker = asker_of(name, groups, self.roles, "web")
        given = self._pass(asker, min(life_s, SESSION_S))
        with self.site.database.writing() as connection:
            return passes.issue(connection, PassKind.SESSION, given)

    def end(self, secret: str) -> None:
        """End a session."""
        with self.site.database.writing() as connection:
            passes.remove(connection, secret)

    def find(self, request: Request) -> Visitor | None:
        """Give who is signed in, if somebody is."""
        secret = request.cookies.get(self.cookie, "")
        if len(secret) != SECRET_CHARACTERS:
            return None
        with self.site.database.reading() as connection:
            found = passes.find(connection, PassKind.SESSION, secret, self.site.clock())
        if found is None:
            return None
        source = request.client.host if request.client else "web"
        # Roles are looked up each time: whoever loses one loses it here too.
        asker = asker_of(found.owner, found.groups, self.roles, source.lstrip("\0"))
        return Visitor(asker=asker, secret=secret, csrf=csrf_of(secret), theme=theme_of(request))

    def set_cookie(self, response: Response, name: str, value: str, life_s: float) -> None:
        """Give the browser a cookie that scripts cannot read and other sites cannot have sent."""
        response.set_cookie(
            name,
            value,
            max_age=int(life_s),
            path="/",
            secure=self.secure,
            httponly=True,
            samesite="lax",
        )

    def drop_cookie(self, response: Response, name: str) -> None:
        """Take a cookie away."""
        self.set_cookie(response, name, "", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """Somebody who is signed in."""

    asker: Asker
    secret: str
    csrf: str
    theme: str


def csrf_of(secret: str) -> str:
    """Give what a form must carry; it follows from a secret that only the browser has."""
    return hashlib.sha256(f"form:{secret}".encode()).hexdigest()


def check_form(request: Request, fields: Fields, wanted: str) -> None:
    """Raise ``Denied`` for a form that no page of ours has made."""
    whence = request.headers.get("sec-fetch-site", "same-origin")
    given = fields.get("csrf", "")
    same = given.isascii() and hmac.compare_digest(given, wanted)
    if not same or whence not in ("same-origin", "none"):
        raise Denied(
            "this form is not from this page, or the page is too old",
            hint="go back, load the page again, and send it once more",
        )


def theme_of(request: Request) -> str:
    """Give the theme that somebody has chosen."""
    chosen = request.cookies.get("mayfly-theme", "auto")
    return chosen if chosen in THEMES else "auto"


def fresh_secret() -> str:
    """Give a secret for somebody who is not signed in."""
    return secrets.token_urlsafe(32)


def _visitor(request: Request) -> Visitor:
    visits: Visits = request.app.state.visits
    found = visits.find(request)
    if found is None:
        raise Unknown("nobody is signed in", hint="sign in first")
    return found


Visiting = Annotated[Visitor, Depends(_visitor)]
"""A parameter of a route: who is signed in; raises ``Unknown``."""
