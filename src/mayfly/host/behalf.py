"""The site server's user: it makes and ends machines for users, and does nothing else here.

``site_user`` in ``host.toml`` names it. A connection that claims for a user is that user's from
there on, and takes nothing but the release of its machine: what else the user has stays closed.
"""

from __future__ import annotations

import os
import pwd
import re
from dataclasses import asdict, replace
from typing import Any

from mayfly.errors import Conflict, Denied, Invalid, Missing
from mayfly.host.caller import Caller
from mayfly.host.names import LOOKUP_LIMIT_S
from mayfly.host.peer import Peer
from mayfly.host.settings import HostSettings
from mayfly.host.state import Service
from mayfly.host.wish import Wish
from mayfly.host.work import Channel, Step, work

SITE_VERBS = frozenset(
    {
        *("claim", "list", "show", "logs", "delete", "release", "enter", "status", "images"),
        *("pause", "suspend", "resume", "snapshot", "snapshots", "revert"),
    }
)
"""What the site's user may ask for; of machines, only those that carry a lease."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")


def site_uid(settings: HostSettings) -> int | None:
    """Give the uid of the site server's user, None where there is none.

    Raises ``Invalid`` when the name means nobody, or root.
    """
    if not settings.site_user:
        return None
    try:
        uid = pwd.getpwnam(settings.site_user).pw_uid
    except KeyError:
        raise Invalid(
            f"'site_user' in host.toml: there is no user '{settings.site_user}'",
            hint="make one for the site server: useradd --system NAME",
        ) from None
    if uid == 0:
        raise Invalid("'site_user' in host.toml must not be root: the site server needs no root")
    return uid


def check_verb(caller: Caller, name: str) -> None:
    """Raise ``Denied`` when the site's user asks for what is not its business."""
    if caller.acting and name != "release":
        raise Denied(f"'{name}' is not for a connection that has claimed for a user")
    if caller.is_site and name not in SITE_VERBS:
        raise Denied(f"'{name}' is not for the site server")


def act_for(service: Service, caller: Caller, wish: Wish) -> Step[Wish]:
    """Let a claim of the site's user be one of the user whom it names; gives the wish as it counts.

    What anybody else says of himself counts for nothing. Raises ``Missing`` when this host knows no
    such user, ``Conflict`` when the lease has a machine.
    """
    if not caller.is_site:
        return replace(wish, user="", lease="")
    if not wish.user or not wish.lease or not wish.outlive:
        raise Invalid("the site server asks for machines with 'user', 'lease' and 'outlive'")
    if not _NAME.fullmatch(wish.user):
        raise Invalid(f"{wish.user[:100]!r} is no name of a user")
    check_single(service, wish)
    peer = yield from _look_up(wish.user, caller.peer)
    if peer.uid == 0:
        raise Denied("the site server makes no machines for root")
    caller.act_for(peer)
    return wish


def check_single(service: Service, wish: Wish) -> None:
    """Raise ``Conflict`` when a lease has a machine already, or one is being made."""
    there = [one.id for one in service.table if one.record.lease == wish.lease]
    waiting = [one.key for one in service.line.values() if one.wish.lease == wish.lease]
    if wish.lease and (there or waiting):
        raise Conflict(f"lease {wish.lease} has a machine: {' '.join(there) or 'it waits in line'}")


def _look_up(name: str, asking: Peer) -> Step[Peer]:
    def body(channel: Channel) -> None:
        channel.done({"peer": _numbers_of(name, asking)})

    done = yield from work(body, name=f"the lookup of user {name}", limit_s=LOOKUP_LIMIT_S)
    found: dict[str, Any] | None = done.words["peer"]
    if found is None:
        raise Missing(
            f"this host knows no user '{name}'",
            hint="a machine belongs to a user of the host that it runs on",
        )
    return Peer(**{**found, "gids": tuple(found["gids"])})


def _numbers_of(name: str, asking: Peer) -> dict[str, Any] | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    # The process is the site server's: its end is what is to be noticed.
    return asdict(replace(asking, uid=entry.pw_uid, gid=entry.pw_gid, gids=tuple(groups)))
