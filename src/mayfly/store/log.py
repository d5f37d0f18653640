"""What happened, appended and never changed; and what is about to be done."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, insert, or_, select, update

from mayfly.site.lease import Lease
from mayfly.store import tables
from mayfly.store.database import new_id
from mayfly.store.leases import Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to a lease."""

    id: str
    at: float
    """Seconds since the epoch."""
    kind: str
    lease: str
    owner: str
    group: str
    actor: str
    """Who did it: ``user:NAME``, or ``mayfly``."""
    source: str
    """From where: an address, or ``local``."""
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class By:
    """Who does something, and from where."""

    actor: str = "mayfly"
    source: str = "local"


OURSELVES = By()


def append(
    connection: Connection, kind: str, lease: Lease, at: float, by: By = OURSELVES, **detail: Any
) -> None:
    """Write down that something happened."""
    row = {
        "id": new_id(),
        "at": at,
        "kind": kind,
        "lease": lease.id,
        "owner": lease.owner,
        "group": lease.group,
        "actor": by.actor[:80],
        "source": by.source[:80],
        "detail": json.dumps(detail),
    }
    connection.execute(insert(tables.events).values(row))


def events(
    connection: Connection, scope: Scope, *, after: str = "", lease: str = "", limit: int = 100
) -> Sequence[Event]:
    """Give what happened, oldest first, from behind an id on."""
    columns = tables.events.c
    query = select(tables.events).order_by(columns.id).limit(limit)
    if not scope.everything:
        query = query.where(or_(columns.owner == scope.owner, columns.group.in_(scope.groups)))
    if after:
        query = query.where(columns.id > after)
    if lease:
        query = query.where(columns.lease == lease)
    rows = connection.execute(query).mappings()
    return [Event(**{**row, "detail": json.loads(row["detail"])}) for row in rows]


def latest(
    connection: Connection, scope: Scope, *, before: str = "", limit: int = 100
) -> Sequence[Event]:
    """Give what happened, newest first, from before an id on."""
    columns = tables.events.c
    query = select(tables.events).order_by(columns.id.desc()).limit(limit)
    if not scope.everything:
        query = query.where(or_(columns.owner == scope.owner, columns.group.in_(scope.groups)))
    if before:
        query = query.where(columns.id < before)
    rows = connection.execute(query).mappings()
    return [Event(**{**row, "detail": json.loads(row["detail"])}) for row in rows]


def newest(connection: Connection) -> str:
    """Give the id of the last event; empty when there is none."""
    columns = tables.events.c
    return (
        connection.execute(select(columns.id).order_by(columns.id.desc()).limit(1)).scalar() or ""
    )


def intend(connection: Connection, lease: str, verb: str, machine: str, at: float) -> str:
    """Write down what is about to be done; gives the intent's id."""
    row = {"id": new_id(), "lease": lease, "verb": verb, "machine": machine, "at": at}
    connection.execute(insert(tables.intents).values(row))
    return row["id"] if isinstance(row["id"], str) else ""


def finish(connection: Connection, intent: str, outcome: str, at: float) -> None:
    """Write down what came of it."""
    change = update(tables.intents).where(tables.intents.c.id == intent)
    connection.execute(change.values(done_at=at, outcome=outcome[:2000]))


def close_open(connection: Connection, at: float) -> int:
    """Close what a server that died was about to do; gives how many: what is seen decides now."""
    still_open = update(tables.intents).where(tables.intents.c.done_at.is_(None))
    return connection.execute(still_open.values(done_at=at, outcome="interrupted")).rowcount
