"""Requests that carry a key, so that sending one twice makes one lease."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select

from mayfly.errors import Conflict
from mayfly.store import tables

KEPT_S = 86_400.0
"""For how long a key is remembered."""


def answered(connection: Connection, owner: str, key: str, fingerprint: str) -> str:
    """Give the lease that a request with this key made, or "".

    Raises ``Conflict`` when the request was another one.
    """
    columns = tables.answers.c
    query = select(columns.fingerprint, columns.lease)
    row = connection.execute(query.where(columns.owner == owner, columns.key == key)).first()
    if row is None:
        return ""
    if row.fingerprint != fingerprint:
        raise Conflict(
            "this Idempotency-Key was sent with another request",
            hint="take a fresh key for each request",
        )
    return str(row.lease)


def remember(
    connection: Connection, owner: str, key: str, fingerprint: str, lease: str, at: float
) -> None:
    """Remember what a request made, and forget what is old."""
    connection.execute(delete(tables.answers).where(tables.answers.c.at < at - KEPT_S))
    row = {"owner": owner, "key": key, "fingerprint": fingerprint, "lease": lease, "at": at}
    connection.execute(insert(tables.answers).values(row))
