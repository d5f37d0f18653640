"""Who asks: a local user by the kernel's word, or somebody with a token."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from mayfly.errors import Denied
from mayfly.server.peers import PEER
from mayfly.server.tokens import Tokens
from mayfly.site.people import Asker, Roles, asker_of

BEARER = "bearer "


class Unknown(Denied):
    """Nobody that the server knows: it answers 401."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Recognises people."""

    roles: Roles = field(default_factory=Roles)
    tokens: Tokens = field(default_factory=Tokens)

    def asker(self, request: HTTPConnection) -> Asker:
        """Give who asks; raises ``Unknown``."""
        client = request.client
        header = request.headers.get("authorization", "")
        if header:
            # Also over the socket: a token is what its bearer wants to be taken for.
            if not header.lower().startswith(BEARER):
                raise Unknown("the Authorization header has no bearer token")
            name, groups = self.tokens.check(header[len(BEARER) :].strip())
            source = "local" if client is None or client.host == PEER else client.host
            return asker_of(name, groups, self.roles, source)
        if client is not None and client.host == PEER:
            return self._local(client.port)
        raise Unknown("no token was sent", hint="send 'Authorization: Bearer TOKEN'")

    def _local(self, uid: int) -> Asker:
        try:
            entry = pwd.getpwuid(uid)
        except KeyError:
            raise Unknown(f"uid {uid} has no name on this host") from None
        gids = [entry.pw_gid, *os.getgrouplist(entry.pw_name, entry.pw_gid)]
        names = tuple(dict.fromkeys(filter(None, map(_group_name, gids))))
        return asker_of(entry.pw_name, names, self.roles, "local")


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""


def who(request: HTTPConnection) -> Asker:
    """Say who asks; the application's state has the door. Raises ``Unknown``."""
    door: Door = request.app.state.door
    return door.asker(request)


Who = Annotated[Asker, Depends(who)]
"""A parameter of a route: whoever asks."""
