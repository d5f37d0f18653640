"""What lets a browser in, as the database keeps it: digests, so that a copy of it opens nothing."""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, Row, delete, insert, select

from mayfly.store import tables

MOST = 20
"""Of one kind for each user; with one more, the oldest goes."""


class PassKind(StrEnum):
    """What a pass is for."""

    LINK = "link"
    """Gives a session, once."""
    SESSION = "session"
    """Is in a browser's cookie."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """Who gets in with it. Times are seconds since the epoch."""

    owner: str
    groups: tuple[str, ...]
    created_at: float
    expires_at: float


def issue(connection: Connection, kind: PassKind, given: Pass) -> str:
    """Write a pass down; gives its secret, which is kept nowhere."""
    columns = tables.passes.c
    secret = secrets.token_urlsafe(32)
    connection.execute(delete(tables.passes).where(columns.expires_at <= given.created_at))
    _make_room(connection, kind, given.owner)
    row = {
        "digest": digest(secret),
        "kind": kind.value,
        "owner": given.owner,
        "groups": json.dumps(given.groups),
        "created_at": given.created_at,
        "expires_at": given.expires_at,
    }
    connection.execute(insert(tables.passes).values(row))
    return secret


def _make_room(connection: Connection, kind: PassKind, owner: str) -> None:
    columns = tables.passes.c
    newest_first = (
        select(columns.digest)
        .where(columns.owner == owner, columns.kind == kind.value)
        .order_by(columns.created_at.desc(), columns.digest)
        .offset(MOST - 1)
    )
    old = list(connection.execute(newest_first).scalars())
    if old:
        connection.execute(delete(tables.passes).where(columns.digest.in_(old)))


def find(connection: Connection, kind: PassKind, secret: str, now: float) -> Pass | None:
    """Give the pass with this secret, if its time is not over."""
    columns = tables.passes.c
    query = select(tables.passes).where(
        columns.digest == digest(secret),
        columns.kind == kind.value,
        columns.expires_at > now,
    )
    row = connection.execute(query).first()
    return None if row is None else _pass(row)


def redeem(connection: Connection, secret: str, now: float) -> Pass | None:
    """Give the pass of a link and take it away: of two at once, one gets it."""
    found = find(connection, PassKind.LINK, secret, now)
    return found if found is not None and remove(connection, secret) else None


def remove(connection: Connection, secret: str) -> bool:
    """Take a pass away; says whether it was there."""
    gone = delete(tables.passes).where(tables.passes.c.digest == digest(secret))
    return connection.execute(gone).rowcount == 1


def digest(secret: str) -> str:
    """Give what stands for a secret of 256 random bits: no salt is needed, and none would help."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _pass(row: Row[tuple[object, ...]]) -> Pass:
    words = row._mapping
    return Pass(
        owner=words["owner"],
        groups=tuple(json.loads(words["groups"])),
        created_at=words["created_at"],
        expires_at=words["expires_at"],
    )
